"""How many workers a batch system is asked for: as many as what is left to train can use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_studies import SMALL, TRIALS

from optiscope.cli.root import root
from optiscope.records import StudyFolder


def dry_run(folder: Path, out: Path, text: str = SMALL) -> Result:
    (folder / "study.toml").write_text(text)
    arguments = ["bench", str(folder / "study.toml"), "--out", str(out), "--array", "100"]
    done = CliRunner().invoke(root, [*arguments, "--on", "slurm", "--dry-run"])
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.parametrize(
    ("seeds", "workers"),
    [
        ("[11, 12]", 2 * (2 + 2 + 2)),  # a random tuning of two is as wide as two seeds
        ("[11, 12, 13, 14, 15]", 2 * (5 + 5 + 5)),  # the seeds are more than a tuning is wide
        ("[11]", 2 * (2 + 1 + 1)),
    ],
)
def test_workers_are_those_of_the_widest_moment(tmp_path: Path, seeds: str, workers: int) -> None:
    done = dry_run(tmp_path, tmp_path / "out", SMALL.replace("[11, 12]", seeds))
    assert f"#SBATCH --array=0-{workers - 1}\n" in done.stdout
    assert f"100 workers asked for, {workers} can work at once" in done.stderr
    total = 2 * (2 + 2 + 3 * (seeds.count(",") + 1))
    assert f"{total} of {total} trials left, {workers} workers" in done.stderr
    assert not (tmp_path / "out").exists()


def test_recorded_trials_need_no_worker(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    done = dry_run(tmp_path, out)
    assert done.stdout == f"all {TRIALS} trials are recorded in {out}: nothing is left to train\n"
    lost = [e for e in StudyFolder(out).ledger() if (e.algorithm, e.seed) == ("Fixed", 12)]
    for entry in lost:
        shutil.rmtree(StudyFolder(out).store.path(entry.trial_hash))
    done = dry_run(tmp_path, out)
    assert "#SBATCH --array=0-1\n" in done.stdout
    assert f"2 of {TRIALS} trials left, 2 workers" in done.stderr
