"""``optiscope status``: how far a study is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optiscope.cli.options import as_json, json_option
from optiscope.cli.terminal import terminal

if TYPE_CHECKING:
    from optiscope.records import Entry, Trial

__all__ = ["command"]


@click.command("status")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@json_option
def command(folder: Path, wants_json: bool) -> None:
    """Show, for the study in FOLDER, what is recorded, what failed and what is damaged."""
    from rich.table import Table
    from rich.text import Text

    from optiscope.records import DamagedRecord, StudyFolder
    from optiscope.records.trial import canonical_json

    kept = StudyFolder(folder)
    declaration = kept.declaration()
    outcomes: Counter[tuple[str, str, str, str]] = Counter()
    damaged: list[str] = []
    codes: Counter[tuple[str, str]] = Counter()
    tried: dict[tuple[str, str], set[str]] = {}
    ledger = kept.ledger()
    for entry in ledger:
        found = kept.store.read(entry.trial_hash, metrics=False)
        state = "open" if found is None else "damaged"
        if isinstance(found, DamagedRecord):
            damaged.append(str(found))
        elif found is not None:
            state = "complete" if found.status.complete else str(found.status)
            codes.update(_codes(found.trial))
        outcomes[entry.problem, entry.algorithm, entry.role, state] += 1
        if entry.role == "tuning":
            settings = canonical_json(dict(entry.hyperparameters))
            tried.setdefault((entry.problem, entry.algorithm), set()).add(settings)
    changed = _changed(codes)
    rows = [
        _row(declaration, problem, algorithm, outcomes)
        | {"tuning_different": len(tried.get((problem, algorithm["label"]), ()))}
        for problem in declaration["problems"]
        for algorithm in declaration["algorithms"]
    ]
    workers = _workers(folder, ledger)
    if wants_json:
        content = {
            "name": declaration["name"],
            "pairs": rows,
            "damaged": damaged,
            "code_changed": changed,
            "workers": workers,
        }
        click.echo(as_json(content))
        return
    table = Table(title=f"{declaration['name']}: {declaration['question']}", title_justify="left")
    for column in ("problem", "algorithm", "tuning", "reporting", "failed"):
        table.add_column(column, justify="left" if column in ("problem", "algorithm") else "right")
    for row in rows:
        table.add_row(
            row["problem"],
            row["algorithm"],
            _tuning(row, len(declaration["tuning"]["seeds"])),
            f"{row['reporting_done']} of {row['reporting_planned']}",
            str(row["failed"]) if row["failed"] else "-",
        )
    console = terminal()
    console.print(table)
    for worker in workers:
        gone = ", which does not answer any more" if worker["stale"] else ""
        job = f", job {worker['job']}" if worker["job"] else ""
        minutes = worker["seconds"] / 60
        text = f"{worker['trial']}: {worker['host']}{job}, for {minutes:.1f} min{gone}"
        console.print(Text(text, style="yellow" if gone else ""))
    for line in damaged:
        console.print(Text(line, style="yellow"))
    for path, count in changed.items():
        text = f"{path} has changed since {count} of these runs, which will run again"
        console.print(Text(text, style="yellow"))


def _tuning(row: dict[str, Any], seeds: int) -> str:
    """Tuning trials done and planned; and how many settings they are of, where some stand twice."""
    text = f"{row['tuning_done']} of {row['tuning_planned']}"
    different = row["tuning_different"] * seeds
    return f"{text}, {different} different" if different < row["tuning_done"] else text


def _workers(folder: Path, ledger: Sequence[Entry]) -> list[dict[str, Any]]:
    """What workers without a head are training, and where."""
    from optiscope.study.claims import Claims

    names = {e.trial_hash: f"{e.algorithm} on {e.problem}, seed {e.seed}" for e in ledger}
    return [
        {
            "trial": names.get(claim.trial_hash, claim.trial_hash),
            "host": claim.host,
            "job": claim.job,
            "seconds": max(time.time() - claim.started, 0.0),
            "stale": stale,
        }
        for claim, stale in Claims(folder).all()
    ]


def _codes(trial: Trial) -> list[tuple[str, str]]:
    """Import paths of optimizer and problem that have one, with the digest of what was trained."""
    parts = ((trial.optimizer, trial.optimizer_code), (trial.problem, trial.problem_code))
    return [(path, code) for path, code in parts if code is not None]


def _changed(codes: Counter[tuple[str, str]]) -> dict[str, int]:
    """Import paths whose code on disk is no longer what was trained, with numbers of runs.

    The code is read and never imported: the records may be anybody's.
    """
    from optiscope.study.source_digest import digests_on_disk

    changed: Counter[str] = Counter()
    for (path, code), count in codes.items():
        now = digests_on_disk(path)
        if now and code not in now:
            changed[path] += count
    return dict(changed)


def _row(
    declaration: dict[str, Any],
    problem: str,
    algorithm: dict[str, Any],
    outcomes: Counter[tuple[str, str, str, str]],
) -> dict[str, Any]:
    label = algorithm["label"]

    def count(role: str, *, done: bool) -> int:
        return sum(
            n
            for (p, a, r, state), n in outcomes.items()
            if (p, a, r) == (problem, label, role) and done == (state not in ("open", "damaged"))
        )

    failed = sum(
        n
        for (p, a, _, state), n in outcomes.items()
        if (p, a) == (problem, label) and state not in ("open", "damaged", "complete")
    )
    return {
        "problem": problem,
        "algorithm": label,
        "tuning_done": count("tuning", done=True),
        "tuning_planned": algorithm["budget"] * len(declaration["tuning"]["seeds"]),
        "reporting_done": count("reporting", done=True),
        "reporting_planned": len(declaration["seeds"]),
        "failed": failed,
    }
