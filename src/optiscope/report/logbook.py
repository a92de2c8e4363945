"""The logbook of a folder of runs: what changed from run to run, and what came of it.

Each entry is held against the one before: settings, code, findings, curves and, where runs with
equal seeds exist on both sides, the effect with its interval.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optiscope.errors import OptiscopeError, shorten
from optiscope.records import DamagedRecord, Measurement, Run, RunStore, higher_is_better
from optiscope.records.journal import Entry, read_code, read_entries
from optiscope.stats.comparison import ComparisonError, paired_comparison

__all__ = ["Effect", "Logbook", "LogbookEntry", "LogbookError", "LoggedRun", "logbook"]

NO_CLAIM = "one seed: no claim"
PREFERRED = (
    ("valid", "accuracy"),
    ("valid", "loss"),
    ("test", "accuracy"),
    ("test", "loss"),
    ("train", "loss"),
)


class LogbookError(OptiscopeError, ValueError):
    """A folder has no logbook, or holds what cannot be read."""


@dataclass(frozen=True)
class LoggedRun:
    """A run as the logbook sees it.

    ``settings`` are flat, without the seed; ``curves`` map (split, name) to steps and values.
    """

    name: str
    settings: Mapping[str, Any]
    seed: int | None
    curves: Mapping[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]]
    findings: tuple[Mapping[str, Any], ...]
    status: str = ""


@dataclass(frozen=True)
class Effect:
    """Difference in the final value of a metric from the run before.

    ``interval`` is None without two pairs of seeds, or where no test could state one; ``words`` say
    which.
    """

    metric: str
    before: float | None
    after: float | None
    pairs: int
    difference: float | None
    interval: tuple[float, float] | None
    words: str


@dataclass(frozen=True)
class LogbookEntry:
    """One entry beside the one before it."""

    entry: Entry
    run: LoggedRun | None
    settings: tuple[tuple[str, Any, Any], ...]
    code: str
    gone: tuple[str, ...]
    new: tuple[str, ...]
    left: tuple[str, ...]
    effect: Effect | None
    before: LoggedRun | None

    @property
    def main_curve(self) -> tuple[str, str] | None:
        """Split and name of the metric that is shown: the first of the preferred ones."""
        return None if self.run is None else _main(self.run)


@dataclass(frozen=True)
class Logbook:
    """All entries of a folder in order."""

    folder: str
    entries: tuple[LogbookEntry, ...]

    def markdown(self) -> str:
        """The logbook as Markdown."""
        parts = [f"# Logbook of {self.folder}", ""]
        for number, one in enumerate(self.entries, 1):
            parts += [f"## {number}. {one.entry.why}", ""]
            parts += [f"{one.entry.when}, {one.entry.who}, run `{one.entry.run}`", ""]
            if one.run is None:
                parts += ["The record of this run is gone.", ""]
            if one.settings:
                parts += ["| setting | before | after |", "|---|---|---|"]
                parts += [f"| {name} | {_cell(a)} | {_cell(b)} |" for name, a, b in one.settings]
                parts += [""]
            if one.effect is not None:
                parts += [f"Effect: {one.effect.words}", ""]
            for word, names in (("gone", one.gone), ("new", one.new), ("left", one.left)):
                if names:
                    parts += [f"Findings {word}: {', '.join(names)}", ""]
            if one.code:
                parts += ["```diff", one.code.replace("```", "'''"), "```", ""]
        return "\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "folder": self.folder,
            "entries": [
                {
                    "run": one.entry.run,
                    "why": one.entry.why,
                    "who": one.entry.who,
                    "when": one.entry.when,
                    "settings": [list(row) for row in one.settings],
                    "code": one.code,
                    "gone": list(one.gone),
                    "new": list(one.new),
                    "left": list(one.left),
                    "effect": None if one.effect is None else one.effect.words,
                }
                for one in self.entries
            ],
        }


def logbook(folder: str | Path) -> Logbook:
    """The logbook of a folder of runs.

    Raises:
        LogbookError: the folder has no entries.
        JournalError: the journal is damaged.
    """
    home = Path(folder)
    entries = read_entries(home)
    if not entries:
        raise LogbookError(
            f'{home} has no logbook: add an entry with `optiscope log "why" {home}/RUN`'
        )
    runs = {run.name: run for run in _runs(home)}
    made: list[LogbookEntry] = []
    before: Entry | None = None
    for entry in entries:
        run = runs.get(entry.run)
        earlier = None if before is None else runs.get(before.run)
        made.append(_beside(home, entry, run, before, earlier, list(runs.values())))
        before = entry
    return Logbook(home.name or str(home), tuple(made))


def _beside(
    home: Path,
    entry: Entry,
    run: LoggedRun | None,
    before: Entry | None,
    earlier: LoggedRun | None,
    runs: Sequence[LoggedRun],
) -> LogbookEntry:
    now = _rules(run)
    then = _rules(earlier)
    settings: tuple[tuple[str, Any, Any], ...] = ()
    effect = None
    if run is not None and earlier is not None:
        settings = _differences(earlier.settings, run.settings)
        effect = _effect(earlier, run, runs)
    code = (
        "" if before is None else _code_difference(read_code(home, before), read_code(home, entry))
    )
    known = run is not None and earlier is not None
    return LogbookEntry(
        entry,
        run,
        settings,
        code,
        tuple(r for r in then if r not in now) if known else (),
        tuple(r for r in now if r not in then),
        tuple(r for r in now if r in then),
        effect,
        earlier,
    )


def _rules(run: LoggedRun | None) -> list[str]:
    if run is None:
        return []
    alarms = [f for f in run.findings if f.get("severity") != "note"]
    return list(dict.fromkeys(str(f.get("rule", "")) for f in alarms))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    names = [*a, *(n for n in b if n not in a)]
    return tuple((n, a.get(n), b.get(n)) for n in names if a.get(n) != b.get(n))


def _code_difference(a: Mapping[str, str], b: Mapping[str, str]) -> str:
    lines: list[str] = []
    for path in [*a, *(p for p in b if p not in a)]:
        old, new = a.get(path, "").splitlines(), b.get(path, "").splitlines()
        lines += difflib.unified_diff(old, new, path, path, lineterm="", n=2)
    return "\n".join(lines[:400])


def _effect(earlier: LoggedRun, run: LoggedRun, runs: Sequence[LoggedRun]) -> Effect | None:
    key = _main(run)
    if key is None or key not in earlier.curves:
        return None
    split, name = key
    metric = f"{split} {name}"
    then, now = (_by_seed(r, runs, key) for r in (earlier, run))
    after, ahead = run.curves[key][1][-1], earlier.curves[key][1][-1]
    change = f"{metric} {ahead:.4g} to {after:.4g}"
    seeds = sorted(set(then) & set(now))
    if len(seeds) < 2:
        return Effect(metric, ahead, after, len(seeds), None, None, f"{change} ({NO_CLAIM})")
    a, b = [now[s] for s in seeds], [then[s] for s in seeds]
    try:
        result = paired_comparison(a, b, higher_is_better=higher_is_better(name))
    except ComparisonError as error:
        return Effect(metric, ahead, after, len(seeds), None, None, f"{change} ({error})")
    if result.difference is None or result.interval is None:
        words = f"{change}; {len(seeds)} paired seeds state no interval"
        return Effect(metric, ahead, after, len(seeds), result.difference, None, words)
    low, high = result.interval
    words = (
        f"{metric} {result.difference:+.4g}, interval {low:+.4g} to {high:+.4g} "
        f"({len(seeds)} paired seeds, {result.verdict})"
    )
    return Effect(metric, ahead, after, len(seeds), result.difference, (low, high), words)


def _by_seed(run: LoggedRun, runs: Sequence[LoggedRun], key: tuple[str, str]) -> dict[int, float]:
    """Final values of runs with the same settings, by seed."""
    alike = [r for r in runs if r.settings == run.settings and r.seed is not None]
    return {r.seed: r.curves[key][1][-1] for r in alike if r.seed is not None and key in r.curves}


def _main(run: LoggedRun) -> tuple[str, str] | None:
    for key in PREFERRED:
        if key in run.curves:
            return key
    return next(iter(run.curves), None)


def _runs(home: Path) -> Iterable[LoggedRun]:
    store = RunStore(home)
    for path in sorted(p for p in home.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if (path / "run.json").exists():
            read = store.read(path.name)
            if isinstance(read, Run):
                yield _from_record(path, read)
            elif isinstance(read, DamagedRecord):
                yield LoggedRun(path.name, {}, None, {}, (), f"damaged: {read.reason}")
        elif (path / "settings.json").exists():
            yield _from_plain(path)


def _from_record(path: Path, run: Run) -> LoggedRun:
    settings = {k: v for k, v in run.trial.to_dict().items() if v is not None and k != "seed"}
    return LoggedRun(
        path.name,
        _flat(settings),
        run.trial.seed,
        _curves(run.metrics),
        _findings(path),
        str(run.status),
    )


def _from_plain(path: Path) -> LoggedRun:
    settings = _json(path / "settings.json")
    if not isinstance(settings, dict):
        raise LogbookError(f"{path / 'settings.json'}: expected an object, got {shorten(settings)}")
    rows = []
    metrics = path / "metrics.jsonl"
    if metrics.exists():
        for number, line in enumerate(metrics.read_text().splitlines(), 1):
            try:
                rows.append(Measurement(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise LogbookError(
                    f"{metrics}, line {number}, is not a measurement: {error}"
                ) from None
    seed = settings.pop("seed", None)
    return LoggedRun(
        path.name,
        _flat(settings),
        seed if isinstance(seed, int) else None,
        _curves(rows),
        _findings(path),
    )


def _findings(path: Path) -> tuple[Mapping[str, Any], ...]:
    file = path / "findings.json"
    if not file.exists():
        return ()
    content = _json(file)
    if not isinstance(content, list):
        raise LogbookError(f"{file}: expected a list of findings, got {shorten(content)}")
    return tuple(f for f in content if isinstance(f, dict))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LogbookError(f"{path} cannot be read: {error}") from None


def _curves(
    rows: Sequence[Measurement],
) -> dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]]:
    kept: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for row in rows:
        if math.isfinite(row.value):
            steps, values = kept.setdefault((row.split, row.name), ([], []))
            steps.append(row.step)
            values.append(row.value)
    return {key: (tuple(s), tuple(v)) for key, (s, v) in kept.items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _cell(value: Any) -> str:
    return "-" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
