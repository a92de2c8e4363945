"""Where curvature is measured from the command line: a problem, a file of weights, or a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optiscope.cli.weight_sources import SourceError, problem_of, weights_at
from optiscope.errors import ExitCode, OptiscopeError, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from optiscope.objective.risk import EmpiricalRisk
    from optiscope.problems import Problem

__all__ = ["FigureError", "Source", "figure_suffix", "load_source", "save_figure"]


class FigureError(OptiscopeError):
    """A figure cannot be written."""

    exit_code = ExitCode.STORE


@dataclass(frozen=True)
class Source:
    """A problem and weights for its model; None for those it is initialized with."""

    problem: Problem
    weights: Any
    title: str

    def risk(
        self,
        split: str,
        *,
        data_dir: Path | None,
        seed: int,
        samples: int | None,
        batch_size: int | None,
    ) -> EmpiricalRisk:
        """The problem's mean loss over a split at the weights."""
        import torch

        from optiscope.problems.risk import risk_of

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.problem.make_model()
        if self.weights is not None:
            try:
                model.load_state_dict(self.weights)
            except RuntimeError as error:
                what = " ".join(str(error).split())
                raise SourceError(
                    f"expected weights of {self.problem.name}, got others: {what[:200]}"
                ) from None
        if batch_size is None:
            count = len(getattr(self.problem.data(data_dir), split))
            count = count if samples is None else min(samples, count)
            batch_size = max(1, min(1000, -(-count // 16)))
        return risk_of(
            self.problem,
            split,
            model,
            data_dir=data_dir,
            seed=seed,
            samples=samples,
            batch_size=batch_size,
        )


def load_source(name: str, weights: Path | None, epoch: int | None) -> Source:
    """The problem and weights that the command line names.

    Raises:
        SourceError: a folder without a run or without weights.
        WeightFileError: a file that holds none.
        UnknownProblemError: no problem has that name.
    """
    from optiscope import problems

    folder = Path(name)
    if folder.is_dir():
        if weights is not None:
            raise SourceError("expected --weights with a problem's name, got it with a run")
        found = weights_at(folder, epoch)
        problem = problems.get(problem_of(folder))
        return Source(problem, found.state, f"{problem.name}, {found.label}")
    if epoch is not None:
        raise SourceError("expected --epoch with the folder of a run, got it with a problem")
    problem = problems.get(name)
    if weights is None:
        return Source(problem, None, f"{problem.name} at its initial weights")
    return Source(problem, weights_at(weights).state, f"{problem.name} at {weights.name}")


def figure_suffix(path: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse a file that no picture can be written to.

    Raises:
        click.BadParameter: the name ends in something else.
    """
    if path.suffix.lower() not in suffixes:
        raise click.BadParameter(
            f"expected a file ending in {', '.join(suffixes)}, got {path.name!r}",
            param_hint="'--figure'",
        )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture, making its folder.

    Raises:
        FigureError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160)
    except OSError as error:
        raise FigureError(f"cannot write {shorten(str(path))}: {error.strerror or error}") from None
