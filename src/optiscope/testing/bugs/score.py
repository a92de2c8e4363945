"""Score of a tool: causes named, named first, delay, and alarms on sound runs."""

from __future__ import annotations

import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from optiscope.testing.bugs.clean import Sound, clean_scripts
from optiscope.testing.bugs.held_back import HELD_BACK
from optiscope.testing.bugs.held_back_second import HELD_BACK_SECOND
from optiscope.testing.bugs.kind import Kind
from optiscope.testing.bugs.mechanisms import MECHANISMS
from optiscope.testing.bugs.public import PUBLIC
from optiscope.testing.bugs.script import Script
from optiscope.testing.bugs.subtle import SUBTLE

__all__ = ["KINDS", "Outcome", "Score", "kinds_named", "our_adapter", "score_tool"]

KINDS: dict[str, dict[str, Kind]] = {
    "public": PUBLIC | SUBTLE | MECHANISMS,
    "held-back": HELD_BACK,
    "held-back-second": HELD_BACK_SECOND,
    "all": PUBLIC | SUBTLE | MECHANISMS | HELD_BACK | HELD_BACK_SECOND,
}


@dataclass(frozen=True)
class Outcome:
    """What a tool said of one run.

    ``named``: a warning or error names the cause; ``first``: the first one does; ``step``: when.
    For sound runs ``kind`` is empty or that of the fault they resemble, and ``alarms`` are false.
    """

    kind: str
    base: str
    seed: int
    faulty: bool
    alarms: tuple[str, ...]
    named: bool
    first: bool
    step: int | None
    seconds: float
    failed: str = ""


@dataclass(frozen=True)
class Score:
    """All outcomes, and the figures that sum them up."""

    outcomes: tuple[Outcome, ...]

    @property
    def faulty(self) -> tuple[Outcome, ...]:
        """Runs with a fault."""
        return tuple(o for o in self.outcomes if o.faulty)

    @property
    def sound(self) -> tuple[Outcome, ...]:
        """Mended twins and clean runs."""
        return tuple(o for o in self.outcomes if not o.faulty)

    def kinds_named(self) -> tuple[int, int]:
        """Kinds whose cause was named in at least half of their runs, and all kinds."""
        runs: dict[str, list[bool]] = {}
        for outcome in self.faulty:
            runs.setdefault(outcome.kind, []).append(outcome.named)
        return sum(sum(r) * 2 >= len(r) for r in runs.values()), len(runs)

    def summary(self) -> dict[str, Any]:
        """Figures: shares of faulty runs, kinds, median delay, alarms on sound runs."""
        faulty, sound = self.faulty, self.sound
        steps = [o.step for o in faulty if o.named and o.step is not None]
        named, kinds = self.kinds_named()
        return {
            "faulty runs": len(faulty),
            "cause named": sum(o.named for o in faulty),
            "named first": sum(o.first for o in faulty),
            "only symptoms": sum(bool(o.alarms) and not o.named for o in faulty),
            "nothing said": sum(not o.alarms for o in faulty),
            "kinds": kinds,
            "kinds named": named,
            "median step": statistics.median(steps) if steps else None,
            "sound runs": len(sound),
            "sound runs with an alarm": sum(bool(o.alarms) for o in sound),
            "runs that failed": sum(bool(o.failed) for o in self.outcomes),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"summary": self.summary(), "outcomes": [asdict(o) for o in self.outcomes]}


def kinds_named(names: Iterable[str], which: str = "all") -> dict[str, Kind]:
    """Kinds by name; raises KeyError on an unknown one."""
    return {name: KINDS[which][name] for name in names}


def our_adapter(model: Any, optimizer: Any, criterion: Any, scheduler: Any = None) -> Any:
    """This package's watch, as the suite attaches it."""
    from optiscope.doctor.watching import watch

    return watch(model, optimizer, loss=criterion, scheduler=scheduler, on_finding="log")


def score_tool(
    attach: Callable[..., Any] = our_adapter,
    *,
    kinds: dict[str, Kind] | None = None,
    seeds: Sequence[int] = (0,),
    clean: int = 0,
    clean_seed: int = 1,
    twins: bool = True,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> Score:
    """Run the suite on a tool.

    Args:
        attach: the tool's adapter (see the package's docstring).
        kinds: kinds to run; the public ones by default.
        seeds: of each kind on each of its bases.
        clean: number of sound runs of random settings besides.
        clean_seed: of those settings.
        twins: whether mended twins are run.
        tell: called with each outcome.
    """
    outcomes = []

    def add(outcome: Outcome) -> None:
        outcomes.append(outcome)
        tell(outcome)

    for kind in (KINDS["public"] if kinds is None else kinds).values():
        for base in kind.bases:
            for seed in seeds:
                for mended in (False, True) if twins else (False,):
                    make = _maker(kind, base, seed, mended)
                    add(_run(attach, make, kind, base, seed, faulty=not mended))
    for name, sound in clean_scripts(clean, clean_seed):
        add(_run(attach, sound, None, name, clean_seed, faulty=False))
    return Score(tuple(outcomes))


def _maker(kind: Kind, base: str, seed: int, mended: bool) -> Callable[[], Script]:
    return lambda: kind.script(base, seed, mended=mended)


def _run(
    attach: Callable[..., Any],
    make: Callable[[], Sound],
    kind: Kind | None,
    base: str,
    seed: int,
    *,
    faulty: bool,
) -> Outcome:
    start = time.perf_counter()
    failed, findings = "", []
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            script = make()
            findings = list(script.run(attach))
            base = getattr(script, "made", base)
    except Exception as error:  # a tool that breaks the run has failed it
        failed = f"{type(error).__name__}: {str(error)[:120]}"
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
    alarms = [f for f in findings if getattr(f, "severity", "warning") != "note"]
    hits = [f for f in alarms if kind is not None and kind.is_named_by(f)]
    return Outcome(
        kind.name if kind is not None else "",
        base,
        seed,
        faulty,
        tuple(str(getattr(f, "rule", f)) for f in alarms),
        bool(hits),
        bool(hits) and alarms[0] in hits,
        int(getattr(hits[0], "step", 0)) if hits else None,
        time.perf_counter() - start,
        failed,
    )
