"""Killing workers of a study at random, and what is lost by it.

Two workers (``optiscope work``) train a small study in one folder. Again and again one of them, its
child, or all at once are killed (SIGKILL) or told to leave (SIGTERM, SIGUSR1), and started again.
In the end the records must be those of an undisturbed study, bit for bit, and no claim be left.

Run with ``python benchmarks/kill_campaign.py --kills 200 --json > records/kill_campaign.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from optiscope.records import Run, RunStore, StudyFolder
from optiscope.study import load_study
from optiscope.study.claims import Claims
from optiscope.study.worker import study_in, work

STUDY = """\
name = "killed"
question = "Which?"
problems = ["digits_mlp"]
epochs = {epochs}
seeds = [{seeds}]

[tuning]
budget = 3
seeds = [1]

[[algorithms]]
optimizer = "momentum"

[[algorithms]]
optimizer = "adam"
sampler = "tpe"

[[algorithms]]
optimizer = "lark"
"""
START = "from optiscope.cli import main; main()"


def worker(folder: Path) -> subprocess.Popen[bytes]:
    """A worker in a session of its own, so that all of it can be killed at once."""
    with (folder / "workers.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", START, "work", str(folder)],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def kill(one: subprocess.Popen[bytes], chance: random.Random) -> str:
    """Do something to a worker; what it was."""
    act = chance.choice(["kill worker", "kill all of it", "kill child", "TERM", "USR1"])
    try:
        if act == "kill worker":
            one.kill()
        elif act == "kill all of it":
            os.killpg(one.pid, signal.SIGKILL)
        elif act == "kill child":
            children = Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text().split()
            for child in children:
                os.kill(int(child), signal.SIGKILL)
        else:
            one.send_signal(getattr(signal, f"SIG{act}"))
    except (OSError, ProcessLookupError):
        return "too late"
    return act


def essence(folder: Path) -> dict[str, Any]:
    """All of the records that must not depend on interruptions."""
    runs = [r for r in RunStore(folder / "runs").scan(metrics=True) if isinstance(r, Run)]
    return {r.trial.hash: (str(r.status), r.reason, r.metrics, r.steps, r.counts) for r in runs}


def prepared(text: str, folder: Path) -> StudyFolder:
    folder.mkdir()
    (folder / "study.toml").write_text(text)
    kept = StudyFolder(folder)
    kept.write_declaration(load_study(folder / "study.toml").to_dict())
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description="kill workers at random and count what is lost")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    text = STUDY.format(
        epochs=asked.epochs, seeds=", ".join(str(100 + i) for i in range(asked.seeds))
    )
    with tempfile.TemporaryDirectory() as place:
        alone = prepared(text, Path(place) / "alone")
        work(study_in(alone), alone)
        expected = essence(alone.path)
        acts: Counter[str] = Counter()
        rounds = 0
        lost = altered = 0
        while acts.total() - acts["too late"] < asked.kills:
            rounds += 1
            kept = prepared(text, Path(place) / f"round{rounds}")
            workers = [worker(kept.path) for _ in range(asked.workers)]
            while any(one.poll() is None for one in workers):
                time.sleep(chance.uniform(0.2, asked.longest))
                if acts.total() - acts["too late"] < asked.kills:
                    acts[kill(chance.choice(workers), chance)] += 1
                done = len(kept.store.hashes()) >= len(expected)
                workers = [
                    one if one.poll() is None or done else worker(kept.path) for one in workers
                ]
            last = worker(kept.path)
            last.wait()
            found = essence(kept.path)
            lost += len(expected.keys() - found.keys())
            altered += sum(found[name] != expected[name] for name in expected.keys() & found.keys())
            claims = len(Claims(kept.path).all())
            if claims:
                raise SystemExit(f"{claims} claims are left in round {rounds}")
        result = {
            "acts": dict(acts),
            "rounds": rounds,
            "trials_each": len(expected),
            "records_lost": lost,
            "records_altered": altered,
            "claims_left": 0,
        }
    print(json.dumps(result, indent=1) if asked.json else result)


if __name__ == "__main__":
    main()
