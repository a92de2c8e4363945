"""Killing workers of a study at random, and what is lost by it.

Two workers (``optiscope work``) train a small study in one folder, and keep weights. Again and
again one of them, its child, or all at once (as by a loss of power) are killed by SIGKILL, or told
to leave by SIGTERM or by SIGUSR1, as Slurm does before it requeues a job, and started again. In the
end the records and the weights must be those of an undisturbed study, bit for bit; no record may
have changed once it was there; and no claim, no state, no draft and no process may be left.

Most workers are copies of a process that has imported everything, so that they die while they work
and not while they import; every tenth is started by a fresh interpreter, as is the last one.

Run with ``python benchmarks/kill_campaign.py --kills 200 --json``. In pieces: ``--into FILE``
adds one to a record, each with a ``--seed`` of its own; ``--seconds`` ends a piece in time.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from optiscope.records import Run, RunStore, StudyFolder
from optiscope.study import load_study

STUDY = """\
name = "killed"
question = "Which?"
problems = ["digits_mlp"]
epochs = {epochs}
seeds = [{seeds}]
keep_weights = "last"

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
ACTS = ["kill worker", "kill all of it", "kill child", "power loss of all", "TERM", "USR1"]


class Worker(Protocol):
    """Leads a session of its own, so that all of it can be killed at once."""

    pid: int

    def ended(self) -> bool: ...


class Fresh:
    """A worker in a new interpreter."""

    def __init__(self, folder: Path) -> None:
        with (folder / "workers.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, "work", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self.process.pid

    def ended(self) -> bool:
        return self.process.poll() is not None


class Copy:
    """A worker in a copy of the :class:`Starter`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def ended(self) -> bool:
        return not Path(f"/proc/{self.pid}").exists()


class Starter:
    """A process that has imported what workers need, computed nothing, and forks them."""

    def __init__(self) -> None:
        (asked, self.ask), (self.answers, answer) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.ask)
            self._serve(asked, answer)
        os.close(asked)
        os.close(answer)

    def start(self, folder: Path) -> Copy:
        os.write(self.ask, f"{folder}\n".encode())
        return Copy(int(os.read(self.answers, 64)))

    def close(self) -> None:
        os.close(self.ask)
        os.waitpid(self.pid, 0)

    def _serve(self, asked: int, answer: int) -> None:
        import torch._dynamo  # noqa: F401

        from optiscope.cli.root import root
        from optiscope.optim import registry  # noqa: F401
        from optiscope.study import worker  # noqa: F401
        from optiscope.train import loop  # noqa: F401

        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how its children ended
        for line in os.fdopen(asked):
            child = os.fork()
            if child == 0:
                os.setsid()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                log = os.open(f"{line.strip()}/workers.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(log, 1)
                os.dup2(log, 2)
                try:
                    root(["work", line.strip()], standalone_mode=False)
                except BaseException as error:
                    print(f"{type(error).__name__}: {error}", flush=True)
                finally:
                    os._exit(0)
            os.write(answer, f"{child}\n".encode())
        os._exit(0)


def kill(workers: list[Worker], chance: random.Random) -> str:
    """Do something to a worker, or to all; what it was."""
    act = chance.choice(ACTS)
    training = [one for one in workers if children_of(one.pid)]
    one = chance.choice(training if training and chance.random() < 0.75 else workers)
    if one.ended():
        return "too late"
    try:
        if act == "kill worker":
            os.kill(one.pid, signal.SIGKILL)
        elif act == "power loss of all":
            for each in workers:
                if not each.ended():
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
            os.kill(one.pid, getattr(signal, f"SIG{act}"))
    except ProcessLookupError:
        return "too late"
    return act


def stats() -> list[tuple[int, list[str]]]:
    """Every process, and the fields of its ``stat`` from its state on."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found.append((int(stat.parent.name), stat.read_text().rpartition(")")[2].split()))
    return found


def children_of(parent: int) -> list[int]:
    return [pid for pid, fields in stats() if int(fields[1]) == parent]


def left_over(sessions: set[int]) -> list[int]:
    """Processes of these sessions that still run."""
    return [pid for pid, fields in stats() if int(fields[3]) in sessions and fields[0] != "Z"]


def wait_for_a_child(workers: list[Worker], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not any(children_of(one.pid) for one in workers):
        time.sleep(0.02)


def essence(folder: Path) -> dict[str, str]:
    """All of the records, and of their weights, that must not depend on interruptions."""
    store = RunStore(folder / "runs")
    found = {}
    for run in store.scan(metrics=True):
        if isinstance(run, Run):
            weights = sorted((store.path(run.trial.hash) / "weights").glob("*"))
            digests = [(one.name, hashlib.sha256(one.read_bytes()).hexdigest()) for one in weights]
            said = (str(run.status), run.reason, run.metrics, run.steps, run.counts, digests)
            found[run.trial.hash] = repr(said)
        else:
            found[run.path.name] = str(run)
    return found


def bytes_of(folder: Path) -> dict[str, str]:
    """Digest of every record's files, as they are now."""
    found = {}
    for path in (folder / "runs").glob("[!.]*/run.json"):
        with contextlib.suppress(FileNotFoundError):
            parts = [path.read_bytes(), (path.parent / "metrics.parquet").read_bytes()]
            found[path.parent.name] = hashlib.sha256(b"\0".join(parts)).hexdigest()
    return found


@dataclass
class Faults:
    """What must not happen, counted."""

    records_lost: int = 0
    records_altered: int = 0
    records_rewritten: int = 0
    records_unasked: int = 0
    claims_left: int = 0
    states_left: int = 0
    processes_left: int = 0
    last_workers_failed: int = 0
    words: list[str] = field(default_factory=list)

    def look(self, folder: Path, expected: dict[str, str], seen: dict[str, set[str]]) -> None:
        """Compare a folder whose study has ended with an undisturbed one, and with its past."""
        found, now = essence(folder), bytes_of(folder)
        missing = sorted(expected.keys() - found.keys())
        other = sorted(n for n in expected.keys() & found.keys() if found[n] != expected[n])
        rewritten = sorted(n for n, digests in seen.items() if digests != {now.get(n)})
        unasked = sorted(found.keys() - expected.keys())
        claims = sorted(str(path.name) for path in (folder / "claims").glob("*"))
        runs = folder / "runs"
        drafts = (*runs.glob(".checkpoints/*"), *runs.glob(".weights/*"))
        states = sorted(str(path.name) for path in drafts)
        self.records_lost += len(missing)
        self.records_altered += len(other)
        self.records_rewritten += len(rewritten)
        self.records_unasked += len(unasked)
        self.claims_left += len(claims)
        self.states_left += len(states)
        for what in (missing, other, rewritten, unasked, claims, states):
            self.words += what

    @property
    def total(self) -> int:
        return sum(value for value in asdict(self).values() if isinstance(value, int))


def prepared(text: str, folder: Path) -> StudyFolder:
    folder.mkdir()
    (folder / "study.toml").write_text(text)
    kept = StudyFolder(folder)
    kept.write_declaration(load_study(folder / "study.toml").to_dict())
    return kept


def finish(folder: Path) -> int:
    """Exit status of a worker that finishes a study alone."""
    last = Fresh(folder)
    try:
        return last.process.wait(LAST_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(last.pid, signal.SIGKILL)


def campaign(asked: argparse.Namespace, starter: Starter, place: Path) -> dict[str, Any]:
    """Kill as often as asked, and count what must not happen."""
    chance = random.Random(asked.seed)
    text = STUDY.format(
        epochs=asked.epochs, seeds=", ".join(str(100 + i) for i in range(asked.seeds))
    )
    alone = asked.reference or place / "alone"
    if not (alone / "study.toml").exists():
        prepared(text, alone)
    if (alone / "study.toml").read_text() != text:
        raise SystemExit(f"{alone} holds another study")
    if finish(alone):
        raise SystemExit((alone / "workers.log").read_text())
    expected, begun = essence(alone), time.monotonic()
    acts, faults, rounds, fresh = Counter[str](), Faults(), 0, 0

    def more() -> bool:
        late = time.monotonic() - begun > asked.seconds
        return acts.total() - acts["too late"] < asked.kills and not late

    while more():
        rounds += 1
        kept = prepared(text, place / f"round{rounds}")
        sessions, seen = set[int](), dict[str, set[str]]()

        def started(folder: Path = kept.path, sessions: set[int] = sessions) -> Worker:
            nonlocal fresh
            cold = chance.random() < 0.1
            fresh += cold
            one: Worker = Fresh(folder) if cold else starter.start(folder)
            sessions.add(one.pid)
            return one

        workers = [started() for _ in range(asked.workers)]
        try:
            while more() and len(kept.store.hashes()) < len(expected):
                if chance.random() < 0.75:  # in the middle of a trial, not while it starts
                    wait_for_a_child(workers)
                time.sleep(chance.uniform(0.0, asked.longest))
                acts[kill(workers, chance)] += 1
                for name, digest in bytes_of(kept.path).items():
                    seen.setdefault(name, set()).add(digest)
                workers = [started() if one.ended() else one for one in workers]
        finally:  # also where this is ended by hand
            for one in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.pid, signal.SIGKILL)
        faults.last_workers_failed += finish(kept.path) != 0
        faults.look(kept.path, expected, seen)
        end = time.monotonic() + 10.0
        while left_over(sessions) and time.monotonic() < end:
            time.sleep(0.1)
        faults.processes_left += len(left_over(sessions))
        if faults.total:
            print((kept.path / "workers.log").read_text()[-3000:], file=sys.stderr)
    return {
        "seed": asked.seed,
        "kills": acts.total() - acts["too late"],
        "acts": dict(sorted(acts.items())),
        "rounds": rounds,
        "workers": asked.workers,
        "fresh_interpreters": fresh,
        "trials_each": len(expected),
        **asdict(faults),
        "seconds": round(time.monotonic() - begun),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def gathered(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over pieces, and the pieces."""
    counts = [name for name, value in asdict(Faults()).items() if isinstance(value, int)]
    names = ["kills", "rounds", "fresh_interpreters", *counts]
    acts = sum((Counter(piece["acts"]) for piece in pieces), Counter[str]())
    sums = {name: sum(piece[name] for piece in pieces) for name in names}
    return sums | {"acts": dict(sorted(acts.items())), "pieces": pieces}


def main() -> None:
    parser = argparse.ArgumentParser(description="kill workers at random and count what is lost")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no kill after these")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--longest", type=float, default=3.0, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", type=Path, help="folder of the undisturbed study, reused")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--into", type=Path, help="record to which this piece is added")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("ended by SIGTERM"))
    starter = Starter()
    try:
        with tempfile.TemporaryDirectory() as place:
            result = campaign(asked, starter, Path(place))
    finally:
        starter.close()
    if asked.into is not None:
        before = json.loads(asked.into.read_text())["pieces"] if asked.into.exists() else []
        pieces = [piece for piece in before if piece["seed"] != asked.seed] + [result]
        asked.into.write_text(json.dumps(gathered(pieces), indent=1) + "\n")
    print(json.dumps(result, indent=1) if asked.json else result)


if __name__ == "__main__":
    main()
