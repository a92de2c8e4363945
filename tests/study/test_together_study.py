"""Trials that train in one batch, as a study declares it and workers and pools run it."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from optiscope.records import Run, RunStore, Status, StudyFolder, Trial
from optiscope.stats.hardware import untimed
from optiscope.study import StudyError, load_study, run_study
from optiscope.study.work import batches_of
from optiscope.study.worker import study_in, work

STUDY = """\
name = "batched"
question = "Which?"
problems = ["digits_logreg"]
epochs = 1
batch_size = 256
seeds = [11, 12]
together = true
keep_weights = "last"
{more}
[tuning]
budget = 2
seeds = [1]

[[algorithms]]
optimizer = "sgd"

[[algorithms]]
optimizer = "adam"
sampler = "tpe"

[[algorithms]]
optimizer = "momentum"
fixed = {{ lr = 0.01 }}
together = false
"""


def runs_in(folder: Path) -> dict[str, Run]:
    found = (run for run in RunStore(folder / "runs").scan(metrics=True) if isinstance(run, Run))
    return {run.trial.hash: run for run in found}


@pytest.mark.skipif(sys.platform != "linux", reason="workers fork")
def test_a_study_declares_it_and_workers_and_pools_batch_alike(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY.format(more=""))
    study = load_study(tmp_path / "study.toml")
    assert [a["together"] for a in study.to_dict()["algorithms"] if "together" in a] == [True] * 2
    kept = StudyFolder(tmp_path / "workers")
    kept.write_declaration(study.to_dict())
    said: list[str] = []
    did = work(study_in(kept), kept, say=said.append)
    assert did.finished, said
    run_study(study, tmp_path / "pool", executor=lambda workers: ThreadPoolExecutor(1), workers=1)
    first, second = runs_in(kept.path), runs_in(tmp_path / "pool")
    assert sorted(first) == sorted(second)
    assert did.trained == len(first) == 10
    for name, run in first.items():
        other = second[name]
        assert run.status is Status.FINISHED, run.reason
        assert (run.trial.together is True) == (run.trial.optimizer != "momentum")
        assert ("together" in run.environment) == (run.trial.together is True)
        for a, b in zip(run.metrics, other.metrics, strict=True):
            assert a.value == pytest.approx(b.value, rel=1e-4)
        weights = list((kept.store.path(name) / "weights").glob("*"))
        assert len(weights) == (run.trial.seed in study.seeds)
    sizes = [run.environment.get("together") for run in first.values()]
    assert max(size or 0 for size in sizes) > 1  # adam's tpe has one trial at a time
    batch = next(run for run in first.values() if run.environment.get("together", 0) > 1)
    assert untimed(batch.environment) == "trained in one batch with other trials"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"sgd"', '"preconditioned_sgd"', "to train together, got preconditioned_sgd"),
        ("{more}", 'autocast = "bfloat16"', "trials with autocast cannot train together"),
        ("{more}", "monitor = {{ every = 5 }}", "are not watched"),
    ],
)
def test_a_study_that_cannot_is_one_line(old: str, new: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY.replace(old, new, 1).format(more=""))
    with pytest.raises(StudyError, match=words):
        load_study(tmp_path / "study.toml")


def test_lists_are_of_trials_alike() -> None:
    def trial(seed: int, together: bool | None, epochs: int = 1) -> Trial:
        return Trial("p", 1, "sgd", {}, seed, epochs, 8, together=together)

    trials = [trial(1, True), trial(2, None), trial(3, True), trial(4, True, 2), trial(5, True)]
    seeds = [[t.seed for t in batch] for batch in batches_of(trials, 2)]
    assert seeds == [[1, 3], [2], [4], [5]]


@pytest.mark.skipif(sys.platform != "linux", reason="workers fork")
def test_one_that_kills_its_batch_is_found_and_the_others_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = STUDY.format(more="").split("[tuning]")[0] + (
        '[[algorithms]]\noptimizer = "sgd"\nlabel = "good"\nfixed = { lr = 0.1 }\n'
        '[[algorithms]]\noptimizer = "sgd"\nlabel = "bad"\nfixed = { lr = 0.125 }\n'
    )
    (tmp_path / "study.toml").write_text(text.replace("[11, 12]", "[11]"))
    kept = StudyFolder(tmp_path / "out")
    kept.write_declaration(load_study(tmp_path / "study.toml").to_dict())
    step = torch.optim.SGD.step

    def dying(optimizer: torch.optim.SGD, closure: Any = None) -> Any:
        if optimizer.param_groups[0]["lr"] == 0.125:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(optimizer, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", dying)
    said: list[str] = []
    did = work(study_in(kept), kept, say=said.append)
    assert did.finished
    outcomes = {run.trial.hyperparameters["lr"]: run for run in runs_in(kept.path).values()}
    assert outcomes[0.1].status is Status.FINISHED
    assert outcomes[0.125].reason.startswith("its process was killed 5 times (SIGKILL")
    assert sum("next time alone" in line for line in said) == 2
