"""Killing workers of a study at random, and what is lost by it.

Two workers (``optiscope work``) train a small study in one folder. Again and again one of them, its
child, or all at once (as by a loss of power) are killed by SIGKILL, or told to leave by SIGTERM or
by SIGUSR1, as Slurm does before it requeues a job, and started again. In the end the records must
be those of an undisturbed study, bit for bit, and no claim be left.

Run with ``python benchmarks/kill_campaign.py --kills 200 --json``. In pieces: ``--into FILE``
adds one to a record, each with a ``--seed`` of its own.
"""

from __future__ import annotations

import argparse
import contextlib
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
LAST_SECONDS = 600
START = "from optiscope.cli import main; main()"


def worker(folder: Path) -> subprocess.Popen[bytes]:
    """A worker in a session of its own, so that all of it can be killed at once."""
    with (folder / "workers.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", START, "work", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


ACTS = ["kill worker", "kill all of it", "kill child", "power loss of all", "TERM", "USR1"]


def kill(workers: list[subprocess.Popen[bytes]], chance: random.Random) -> str:
    """Do something to a worker, or to all; what it was."""
    act = chance.choice(ACTS)
    training = [one for one in workers if children_of(one.pid)]
    one = chance.choice(training if training and chance.random() < 0.75 else workers)
    if one.poll() is not None:
        return "too late"
    try:
        if act == "kill worker":
            one.kill()
        elif act == "power loss of all":
            for each in workers:
                if each.poll() is None:
                    os.killpg(each.pid, signal.SIGKILL)
        elif act == "kill all of it":
            os.killpg(one.pid, signal.SIGKILL)
        elif act == "kill child":
            children = children_of(one.pid)
            if not children:
                return "too late"
            for child in children:
                os.kill(child, signal.SIGKILL)
        else:
            one.send_signal(getattr(signal, f"SIG{act}"))
    except (OSError, ProcessLookupError):
        return "too late"
    return act


def children_of(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def wait_for_a_child(workers: list[subprocess.Popen[bytes]], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not any(children_of(one.pid) for one in workers):
        time.sleep(0.1)


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
    parser.add_argument("--into", type=Path, help="record to which this piece is added")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("ended by SIGTERM"))
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
            try:
                while any(one.poll() is None for one in workers):
                    if chance.random() < 0.75:  # in the middle of a trial, not while it starts
                        wait_for_a_child(workers)
                    time.sleep(chance.uniform(0.0, asked.longest))
                    if acts.total() - acts["too late"] < asked.kills:
                        acts[kill(workers, chance)] += 1
                    done = len(kept.store.hashes()) >= len(expected)
                    workers = [
                        one if one.poll() is None or done else worker(kept.path) for one in workers
                    ]
            finally:  # also where this is ended by hand
                for one in workers:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(one.pid, signal.SIGKILL)
            last = worker(kept.path)
            last.wait(LAST_SECONDS)
            found = essence(kept.path)
            lost += len(expected.keys() - found.keys())
            altered += sum(found[name] != expected[name] for name in expected.keys() & found.keys())
            claims = len(Claims(kept.path).all())
            if claims:
                raise SystemExit(f"{claims} claims are left in round {rounds}")
        result = {
            "seed": asked.seed,
            "kills": acts.total() - acts["too late"],
            "acts": dict(acts),
            "rounds": rounds,
            "trials_each": len(expected),
            "records_lost": lost,
            "records_altered": altered,
            "claims_left": 0,
        }
    if asked.into is not None:
        before = json.loads(asked.into.read_text())["pieces"] if asked.into.exists() else []
        pieces = [piece for piece in before if piece["seed"] != asked.seed] + [result]
        names = ("kills", "rounds", "records_lost", "records_altered", "claims_left")
        result = {name: sum(piece[name] for piece in pieces) for name in names} | {"pieces": pieces}
        asked.into.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if asked.json else result)


if __name__ == "__main__":
    main()
