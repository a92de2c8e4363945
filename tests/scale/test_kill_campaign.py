"""The campaign of kills would see a record that is lost or altered, and what is left behind."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from optiscope.records import Measurement, Run, RunStore, Status, Trial

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_campaign.py"


@pytest.fixture(scope="module")
def campaign() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("kill_campaign", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_campaign"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kill_campaign"]


def run(seed: int, loss: float = 0.5) -> Run:
    trial = Trial("none", 1, "none", {}, seed, 1, 1)
    measured = (Measurement(1, 1.0, "test", "loss", loss),)
    return replace(Run.unstarted(trial, Status.FINISHED, "done"), metrics=measured)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(3):
        RunStore(tmp_path / "runs").write(run(seed, float("nan") if seed == 2 else 0.5))
    return tmp_path


def test_nothing_is_wrong_with_an_equal_folder(campaign: ModuleType, folder: Path) -> None:
    faults = campaign.Faults()
    seen = {name: {digest} for name, digest in campaign.bytes_of(folder).items()}
    assert len(seen) == 3
    faults.look(folder, campaign.essence(folder), seen)
    assert faults.total == 0


def test_every_fault_is_seen(campaign: ModuleType, folder: Path) -> None:
    expected = campaign.essence(folder)
    seen = {name: {digest} for name, digest in campaign.bytes_of(folder).items()}
    runs = folder / "runs"
    names = [run(seed).trial.hash for seed in range(3)]
    shutil.rmtree(runs / names[0])
    shutil.rmtree(runs / names[1])
    RunStore(runs).write(run(1, loss=0.5000001))
    RunStore(runs).write(run(9))
    (runs / names[2] / "weights").mkdir()
    (runs / names[2] / "weights" / "epoch_1.safetensors").touch()
    for left in ("claims/a.json", "claims/.stale-1", "runs/.checkpoints/b.pt", "runs/.weights/c"):
        (folder / left).parent.mkdir(exist_ok=True)
        (folder / left).touch()
    faults = campaign.Faults()
    faults.look(folder, expected, seen)
    assert faults.records_lost == 1
    assert faults.records_altered == 2
    assert faults.records_rewritten == 2
    assert faults.records_unasked == 1
    assert faults.claims_left == 2
    assert faults.states_left == 2


def test_pieces_add_up(campaign: ModuleType) -> None:
    path = SCRIPT.parent / "records" / "kill_campaign.json"
    record = json.loads(path.read_text())
    assert record == json.loads(json.dumps(campaign.gathered(record["pieces"])))
    assert record["kills"] >= 200
    assert len({piece["seed"] for piece in record["pieces"]}) == len(record["pieces"])
