"""``optiscope status``: how far a study is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optiscope.cli.options import as_json, json_option
from optiscope.cli.terminal import terminal

if TYPE_CHECKING:
    from rich.console import Group

    from optiscope.records import Entry, Run, StudyFolder
    from optiscope.study.forecast import Typical

__all__ = ["command"]


WATCH_SECONDS = 2.0


@click.command("status")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--watch", is_flag=True, help="Keep showing it until every trial is recorded.")
@json_option
def command(folder: Path, watch: bool, wants_json: bool) -> None:
    """Show, for the study in FOLDER, what is recorded, who trains what, and what it will cost.

    A trial that takes more than three times what its like take is marked as slow.
    """
    from rich.live import Live

    from optiscope.records import StudyFolder

    look = _Look(StudyFolder(folder))
    content = look()
    if wants_json:
        click.echo(as_json(content))
        return
    console = terminal()
    if not watch:
        console.print(_shown(content))
        return
    with Live(_shown(content), console=console, auto_refresh=False) as live:
        while content["left"]["trials"]:
            time.sleep(WATCH_SECONDS)
            content = look()
            live.update(_shown(content), refresh=True)


class _Look:
    """Looks at a study's folder, as often as asked; a record that is there does not change."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self.runs: dict[str, Run] = {}

    def __call__(self) -> dict[str, Any]:
        """What there is to tell, as plain values."""
        from optiscope.records import DamagedRecord
        from optiscope.records.crashes import crashes
        from optiscope.records.trial import canonical_json
        from optiscope.study.changed_code import changed, codes_of
        from optiscope.study.forecast import Typical, forecast

        declaration, ledger = self.folder.declaration(), self.folder.ledger()
        outcomes: Counter[tuple[str, str, str, str]] = Counter()
        damaged: list[str] = []
        codes: Counter[tuple[str, str]] = Counter()
        tried: dict[tuple[str, str], set[str]] = {}
        ended: list[tuple[tuple[str, str], Run]] = []
        entries: list[tuple[Entry, Run]] = []
        for entry in ledger:
            name = entry.trial_hash
            found = self.runs.get(name) or self.folder.store.read(name, metrics=False)
            state = "open" if found is None else "damaged"
            if isinstance(found, DamagedRecord):
                damaged.append(str(found))
            elif found is not None:
                self.runs[name] = found
                state = "complete" if found.status.complete else str(found.status)
                codes.update(codes_of(found.trial))
                ended.append(((entry.problem, entry.algorithm), found))
                entries.append((entry, found))
            outcomes[entry.problem, entry.algorithm, entry.role, state] += 1
            if entry.role == "tuning":
                settings = canonical_json(dict(entry.hyperparameters))
                tried.setdefault((entry.problem, entry.algorithm), set()).add(settings)
        rows = [
            _row(declaration, problem, algorithm, outcomes)
            | {"tuning_different": len(tried.get((problem, algorithm["label"]), ()))}
            for problem in declaration["problems"]
            for algorithm in declaration["algorithms"]
        ]
        typical = Typical(ended)
        workers = _workers(self.folder.path, ledger, typical)
        running = [
            ((w["problem"], w["algorithm"]), w["seconds"]) for w in workers if not w["stale"]
        ]
        left = forecast({(r["problem"], r["algorithm"]): _left(r) for r in rows}, running, typical)
        return {
            "name": declaration["name"],
            "question": declaration["question"],
            "tuning_seeds": len(declaration["tuning"]["seeds"]),
            "pairs": rows,
            "crashed": crashes(entries),
            "damaged": damaged,
            "code_changed": changed(codes),
            "workers": workers,
            "left": asdict(left) | {"words": str(left)},
        }


def _left(row: dict[str, Any]) -> int:
    """Parts of a pair that are planned and not recorded."""
    return sum(max(int(row[f"{r}_planned"] - row[f"{r}_done"]), 0) for r in ("tuning", "reporting"))


def _shown(content: dict[str, Any]) -> Group:
    """The same for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from optiscope.records.crashes import crash_text
    from optiscope.study.forecast import in_words

    title = f"{content['name']}: {content['question']}"
    table = Table(title=title, title_justify="left")
    for column in ("problem", "algorithm", "tuning", "reporting", "failed"):
        table.add_column(column, justify="left" if column in ("problem", "algorithm") else "right")
    for row in content["pairs"]:
        table.add_row(
            row["problem"],
            row["algorithm"],
            _tuning(row, content["tuning_seeds"]),
            f"{row['reporting_done']} of {row['reporting_planned']}",
            str(row["failed"]) if row["failed"] else "-",
        )
    lines = [Text(content["left"]["words"])]
    for worker in content["workers"]:
        job = f", job {worker['job']}" if worker["job"] else ""
        text = f"{worker['trial']}: {worker['host']}{job}, for {in_words(worker['seconds'])}"
        if worker["usual_seconds"] is not None:
            text += f" of about {in_words(worker['usual_seconds'])}"
        gone = ", which no longer responds" if worker["stale"] else ""
        slow = ", slow" if worker["straggles"] else ""
        lines.append(Text(text + slow + gone, style="yellow" if slow or gone else ""))
    lines += [Text(crash_text(crash), style="red") for crash in content["crashed"]]
    lines += [Text(line, style="yellow") for line in content["damaged"]]
    for path, count in content["code_changed"].items():
        text = f"{path} has changed since {count} of these runs, which will run again"
        lines.append(Text(text, style="yellow"))
    return Group(table, *lines)


def _tuning(row: dict[str, Any], seeds: int) -> str:
    """Tuning trials done and planned; and how many settings they are of, where some stand twice."""
    text = f"{row['tuning_done']} of {row['tuning_planned']}"
    different = row["tuning_different"] * seeds
    return f"{text}, {different} different" if different < row["tuning_done"] else text


def _workers(folder: Path, ledger: Sequence[Entry], typical: Typical) -> list[dict[str, Any]]:
    """What workers without a head are training, and where."""
    from optiscope.study.claims import Claims

    entries = {entry.trial_hash: entry for entry in ledger}
    workers = []
    for claim, stale in Claims(folder).all():
        entry = entries.get(claim.trial_hash)
        pair = ("", "") if entry is None else (entry.problem, entry.algorithm)
        seconds = max(time.time() - claim.started, 0.0)
        name = claim.trial_hash if entry is None else f"{pair[1]} on {pair[0]}, seed {entry.seed}"
        workers.append(
            {
                "trial": name,
                "problem": pair[0],
                "algorithm": pair[1],
                "host": claim.host,
                "job": claim.job,
                "seconds": seconds,
                "usual_seconds": typical.seconds(pair),
                "straggles": typical.straggles(pair, seconds),
                "stale": stale,
            }
        )
    return workers


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
