"""What a study of tens of thousands of trials costs besides its training.

Four parts, each a command of its own, because each takes minutes; ``--into FILE`` adds what it
measured to a record:

- ``submit``: ``optiscope bench --on slurm`` of a study of 10,000 trials, in turn with one of 200
  and with the imports that both begin with. Slurm's commands are stand-ins that write down how they
  were called. Then a worker of it trains two trials as a job does, and the stand-ins tell whether
  it asked the queue for anything.
- ``worker-1000``, ``worker-20000``: the time between two trials of a worker whose study has so many
  entries: seeing what is recorded, planning, the ledger, the claim, and the look at the new record.
  The worker is the real one; in place of training, the record of a made-up run is written, outside
  of the time that counts. All other entries have records, each in a folder of its own.
- ``pack``: 20,000 made-up runs of 126 random measurements are packed; then the table of summaries
  is read, and every run is read with all digests checked. Files and folders are counted.

Figures are seconds of wall time and of processor time (user and system), with the number of
processes that could run meanwhile (the load) as a sign of a shared machine.

Run with ``python benchmarks/scale.py PART --into FILE``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from optiscope.records import Measurement, Run, RunStore, Seconds, Status, StudyFolder, Trial
from optiscope.records.record_file import digest_of, metrics_table
from optiscope.records.run import summarise

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "nadam")
PROBLEMS = ("digits_mlp", "digits_conv")
SEEDS = tuple(range(100, 110))
EPOCHS = 20  # with the state before them, 21 times 3 splits times 2 figures: 126 measurements
START = "from optiscope.cli import main; main()"
IMPORTS = "import optiscope.study, optiscope.cli.bench, torch._dynamo; optiscope.study.load_study"
KINDS = 1_000
"""Different curves among the made-up runs: few enough to be made in a second."""
STAND_IN = '#!/bin/sh\necho "$(basename "$0") $*" >> "$SCALE_CALLS"\necho "Submitted batch job 1"\n'
SLURM = ("sbatch", "squeue", "sacct", "scontrol", "sinfo", "sstat", "sprio", "srun", "scancel")


def study_text(entries: int, epochs: int = EPOCHS) -> str:
    """A study of so many entries: ten pairs, each with a tuning at random and ten seeds."""
    budget = entries // (len(OPTIMIZERS) * len(PROBLEMS)) - len(SEEDS)
    words = [
        'name = "large"',
        'question = "Which?"',
        f"problems = {json.dumps(PROBLEMS)}",
        f"epochs = {epochs}",
        f"seeds = {list(SEEDS)}",
        f'[tuning]\nbudget = {budget}\nsampler = "random"',
        *(f'[[algorithms]]\noptimizer = "{name}"' for name in OPTIMIZERS),
    ]
    return "\n".join(words) + "\n"


@contextmanager
def timed(into: dict[str, float]) -> Iterator[None]:
    """Puts wall and processor seconds of the inside, children that ended included, into a dict."""
    wall, processor = time.perf_counter(), _processor()
    yield
    into["wall"] = time.perf_counter() - wall
    into["processor"] = _processor() - processor


def _processor() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def quartiles(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"lower": low, "median": middle, "upper": high, "largest": max(values)}


def differences(
    some: Sequence[dict[str, float]], others: Sequence[dict[str, float]], what: str
) -> list[float]:
    return [a[what] - b[what] for a, b in zip(some, others, strict=True)]


def made_up(trial: Trial, chance: random.Random, surroundings: dict[str, Any]) -> Run:
    """A finished run with random figures, which compress as badly as real ones or worse."""
    metrics = [
        Measurement(epoch * 40, float(epoch), split, name, chance.random())
        for epoch in range(EPOCHS + 1)
        for split in ("train_eval", "valid", "test")
        for name in ("loss", "accuracy")
    ]
    final, best = summarise(metrics)
    phases = ("data", "forward_backward", "optimizer", "instruments", "evaluation")
    return Run(
        trial=trial,
        status=Status.FINISHED,
        reason="all epochs done",
        steps=EPOCHS * 40,
        seconds={phase: Seconds(chance.random(), chance.random()) for phase in phases},
        counts={"gradient_evaluations": EPOCHS * 40, "hessian_products": 0},
        peak_memory_bytes=chance.randrange(2**30),
        environment=surroundings,
        started="2026-01-02T03:04:05+00:00",
        metrics=metrics,
        final=final,
        best=best,
    )


def put(store: RunStore, run: Run) -> None:
    """Write a record as the store does, without its guards against other writers."""
    folder = store.path(run.trial.hash)
    folder.mkdir(parents=True)
    measured = metrics_bytes(tuple(run.metrics))
    content = run.to_dict() | {"metrics_sha256": hashlib.sha256(measured).hexdigest()}
    content["digest"] = digest_of(content)
    (folder / "metrics.parquet").write_bytes(measured)
    (folder / "run.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


@cache
def metrics_bytes(metrics: tuple[Measurement, ...]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(metrics_table(metrics), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def surroundings() -> dict[str, Any]:
    """What a record made here says about the machine."""
    import torch

    from optiscope.train.environment import environment
    from optiscope.train.isolation import isolated

    with isolated():
        torch.set_flush_denormal(True)  # as in workers, which take no runs of other arithmetic
        return dict(environment(torch.device("cpu")))


@contextmanager
def unsynced() -> Iterator[None]:
    """No waiting for the disk, where many files are made that are not what is measured."""
    with patch.object(os, "fsync", lambda descriptor: None):
        yield


# --------------------------------------------------------------------------------------- submit


def submit(place: Path, rounds: int) -> dict[str, Any]:
    """Submission of 10,000 trials beside that of 200, and what a worker asks of Slurm."""
    calls, path = place / "calls", f"{_stand_ins(place)}:{os.environ['PATH']}"
    around = {**os.environ, "PATH": path, "SCALE_CALLS": str(calls)}
    options = ("--on", "slurm", "--partition", "day", "--time", "3h", "--array", "20")
    spent: dict[int, list[dict[str, float]]] = {200: [], 10_000: []}
    asked: dict[int, list[str]] = {}
    imports: list[dict[str, float]] = []
    for number in range(rounds):
        imports.append({})
        with timed(imports[-1]):
            subprocess.run([sys.executable, "-c", IMPORTS], check=True, timeout=600)
        for entries, times in spent.items():
            file = place / f"{entries}.toml"
            file.write_text(study_text(entries, epochs=1))
            out = place / f"submitted-{entries}-{number}"
            calls.write_text("")
            times.append({})
            with timed(times[-1]):
                _optiscope(["bench", str(file), *options, "--out", str(out)], around)
            asked[entries] = calls.read_text().splitlines()
    calls.write_text("")
    job = around | {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": str(int(time.time()) + 3600)}
    said = _optiscope(["work", str(place / "submitted-10000-0"), "--max-trials", "2"], job)
    return {
        "trials": 10_000,
        "seconds": quartiles([one["wall"] for one in spent[10_000]]),
        "processor_seconds": quartiles([one["processor"] for one in spent[10_000]]),
        "seconds_of_200_trials": quartiles([one["wall"] for one in spent[200]]),
        "seconds_of_imports": quartiles([one["wall"] for one in imports]),
        "seconds_beyond_imports": quartiles(differences(spent[10_000], imports, "wall")),
        "processor_beyond_imports": quartiles(differences(spent[10_000], imports, "processor")),
        "processor_beyond_200": quartiles(differences(spent[10_000], spent[200], "processor")),
        "calls": [line.split()[0] for line in asked[10_000]],
        "worker_said": said.splitlines()[-1],
        "calls_of_worker": calls.read_text().splitlines(),
        "rounds": rounds,
    }


def _stand_ins(place: Path) -> Path:
    folder = place / "slurm"
    folder.mkdir()
    for name in SLURM:
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    return folder


def _optiscope(words: Sequence[str], around: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", START, *words],
        env=around,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise SystemExit(f"optiscope {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


# --------------------------------------------------------------------------------------- worker


def worker(entries: int, path: Path, trials: int) -> dict[str, Any]:
    """Has a worker go through the last ``trials`` entries of a study whose others are recorded."""
    from optiscope.study import load_study
    from optiscope.study import worker as module
    from optiscope.study.plan import Plan

    (path / "study.toml").write_text(study_text(entries))
    study, folder = load_study(path / "study.toml"), StudyFolder(path)
    folder.write_declaration(study.to_dict())
    chance, around = random.Random(entries), surroundings()
    plan, left = Plan(study), entries - trials
    written = 0
    with unsynced():
        folder.store.check_writable()
        while written < left and (new := plan.ask()):
            for trial in new[: left - written]:
                run = made_up(trial, random.Random(written % KINDS), around)
                put(folder.store, run)
                plan.tell(run)
                written += 1
    gaps: list[float] = []
    processor: list[float] = []
    since: list[float] = []

    def no_training(batch: Sequence[Trial], *_rest: object) -> None:
        if since:
            gaps.append(time.perf_counter() - since[0])
            processor.append(time.process_time() - since[1])
        for trial in batch:
            folder.store.write(made_up(trial, chance, around))
        since[:] = time.perf_counter(), time.process_time()

    start: dict[str, float] = {}
    with patch.object(module, "record_trials", no_training), timed(start):
        did = module.work(study, folder, max_trials=trials)
    recorded = len(folder.store.hashes())
    if (did.trained, recorded) != (trials, entries):
        raise SystemExit(f"of {entries} entries {recorded} are recorded, {did.trained} by a worker")
    return {
        "entries": len(folder.ledger()),
        "records": recorded,
        "trials": did.trained,
        "seconds": quartiles(gaps),
        "processor_seconds": quartiles(processor),
        "start": start["wall"] - sum(gaps),
        "ledger_bytes": (path / "ledger.json").stat().st_size,
    }


# ----------------------------------------------------------------------------------------- pack


def pack(place: Path, count: int) -> dict[str, Any]:
    """Packing of many runs, and reading of what was packed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from optiscope.records import compact

    store, around = RunStore(place / "runs"), surroundings()
    like = Trial("digits_mlp", 1, "momentum", {"lr": 0.1, "momentum": 0.9}, 0, EPOCHS, 32)
    spent: dict[str, dict[str, float]] = {
        name: {} for name in ("write", "compact", "summary", "scan", "scan_summaries", "unpacked")
    }
    store.check_writable()
    with unsynced(), timed(spent["write"]):
        for seed in range(count):
            chance = random.Random(seed)
            point = {"lr": 10 ** chance.uniform(-4, 0), "momentum": 0.9}
            optimizer = chance.choice(OPTIMIZERS)
            trial = replace(like, optimizer=optimizer, hyperparameters=point, seed=seed)
            if not store.path(trial.hash).exists():
                put(store, made_up(trial, random.Random(seed % KINDS), around))
    loose = _inodes(store.root)
    with timed(spent["unpacked"]):
        found = sum(isinstance(store.check(name), Run) for name in store.hashes())
    with timed(spent["compact"]):
        did = compact(store)
    packed = _inodes(store.root)
    with timed(spent["summary"]):
        names = ["optimizer", "status", "final_valid_loss"]
        table = pa.concat_tables([pq.read_table(path, columns=names) for path in did.segments])
        means = table.group_by(["optimizer", "status"]).aggregate([("final_valid_loss", "mean")])
    fresh = RunStore(store.root)
    with timed(spent["scan"]):
        checked = sum(isinstance(fresh.check(name), Run) for name in fresh.hashes())
    fresh = RunStore(store.root)
    with timed(spent["scan_summaries"]):
        runs = sum(isinstance(run, Run) for run in fresh.scan())
    if not found == checked == runs == table.num_rows == count == did.moved:
        raise SystemExit(f"of {count} runs {found}, {checked}, {runs}, {table.num_rows} were read")
    return {
        "runs": count,
        "inodes": {"loose": loose["inodes"], "packed": packed["inodes"]},
        "bytes": {"loose": loose["bytes"], "packed": packed["bytes"]},
        "groups": means.num_rows,
        "seconds": spent,
    }


def _inodes(folder: Path) -> dict[str, int]:
    found = [folder, *folder.rglob("*")]
    return {"inodes": len(found), "bytes": sum(one.stat().st_size for one in found)}


PARTS: dict[str, tuple[Callable[[Path, int], dict[str, Any]], int]] = {
    "submit": (submit, 5),
    "worker-1000": (partial(worker, 1_000), 100),
    "worker-20000": (partial(worker, 20_000), 100),
    "pack": (pack, 20_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="costs of large studies besides their training")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, help="rounds, trials or runs, instead of the bar's")
    parser.add_argument("--place", type=Path, help="folder of the made-up runs of pack, kept")
    parser.add_argument("--into", type=Path, help="record to which this part is added")
    asked = parser.parse_args()
    part, usual = PARTS[asked.part]
    begun, before = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        result = part(asked.place or Path(place), asked.count or usual)
    result |= {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "begun": begun,
        "load": [round(before, 1), round(os.getloadavg()[0], 1)],
    }
    if asked.into is not None:
        record = json.loads(asked.into.read_text()) if asked.into.exists() else {}
        asked.into.write_text(json.dumps(record | {asked.part: result}, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
