"""A worker for each slot of the GPUs; no GPU is needed to hand slots out."""

from __future__ import annotations

from concurrent.futures import wait
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from pool_tasks import slot

from optiscope.executors.gpus import GpuError, gpu_devices, gpu_pool, gpu_slots
from optiscope.train.environment import environment


def test_all_gpus_have_a_worker_before_any_has_two() -> None:
    named = [one["CUDA_VISIBLE_DEVICES"] for one in gpu_slots(["0", "GPU-5a"], 2)]
    assert named == ["0", "GPU-5a", "0", "GPU-5a"]
    with pytest.raises(ValueError, match="at least one"):
        gpu_slots(["0"], 0)


def test_each_worker_has_its_slot_and_records_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gpu_pool(1, devices=["3", "7"])(99) as pool:
        held = [pool.submit(slot, str(tmp_path), 2, 240.0) for _ in range(2)]
        done, _ = wait(held, timeout=300)
        found = sorted(future.result() for future in done)
    assert found == [("3", "3 of 1"), ("7", "7 of 1")]
    assert "packing" not in environment(torch.device("cpu"))
    monkeypatch.setenv("OPTISCOPE_SLOT", "GPU-5a of 2")
    packing = environment(torch.device("cpu"))["packing"]
    assert packing == {"gpu": "GPU-5a", "per_gpu": 2, "mps": False}


def test_devices_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_devices() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-1")
    assert gpu_devices() == ["5", "GPU-1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(GpuError, match="expected a GPU that torch can use on this machine"):
        gpu_devices()


STUDY = """\
name = "a"
question = "?"
problems = ["digits_logreg"]
seeds = [1]
[[algorithms]]
optimizer = "sgd"
fixed = { lr = 0.1 }
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "gpus"], "give --device cuda"),
        (["--on", "gpus", "--device", "cuda"], "got none"),
        (["--per-gpu", "2"], "--per-gpu goes with --on gpus"),
        (["--wait"], "--wait goes with --on slurm"),
        (["--wait", "--on", "gpus"], "--wait goes with --on slurm"),
    ],
)
def test_bench_refuses_in_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optiscope.cli.root import root

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    (tmp_path / "a.toml").write_text(STUDY)
    line = ["bench", str(tmp_path / "a.toml"), "--out", str(tmp_path / "out"), *words]
    result = CliRunner().invoke(root, line)
    assert result.exit_code
    assert said in result.output + str(result.exception)
    assert not (tmp_path / "out").exists()
