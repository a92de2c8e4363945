"""Where curvature is measured from the command line: a problem, a file of weights, or a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optiscope.errors import ExitCode, OptiscopeError, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from optiscope.objective.risk import EmpiricalRisk
    from optiscope.problems import Problem

__all__ = ["Source", "SourceError", "figure_suffix", "load_source", "save_figure"]


class SourceError(OptiscopeError, ValueError):
    """What was named is no problem, no run with weights and no file of weights."""


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
        SourceError: a folder without a run or without weights, or a file that holds none.
        UnknownProblemError: no problem has that name.
    """
    from optiscope import problems

    folder = Path(name)
    if folder.is_dir():
        if weights is not None:
            raise SourceError("expected --weights with a problem's name, got it with a run")
        return _of_run(folder, epoch)
    if epoch is not None:
        raise SourceError("expected --epoch with the folder of a run, got it with a problem")
    problem = problems.get(name)
    if weights is None:
        return Source(problem, None, f"{problem.name} at its initial weights")
    return Source(problem, read_weights(weights), f"{problem.name} at {weights.name}")


def _of_run(folder: Path, epoch: int | None) -> Source:
    """The weights that a run kept: ``weights/epoch_<n>.safetensors`` beside its ``run.json``."""
    from optiscope import problems

    record = folder / "run.json"
    if not record.is_file():
        raise SourceError(
            f"expected the folder of a run, with run.json, got {shorten(str(folder))}: name the "
            "folder of one run"
        )
    files = {
        int(path.stem.rpartition("_")[2]): path
        for path in (folder / "weights").glob("epoch_*.safetensors")
        if path.stem.rpartition("_")[2].isdigit()
    }
    if not files:
        raise SourceError(
            f"expected a run that kept its weights, got {shorten(str(folder))} without any: train "
            "it with --keep-weights"
        )
    chosen = max(files) if epoch is None else epoch
    if chosen not in files:
        known = ", ".join(map(str, sorted(files)))
        raise SourceError(f"expected an epoch whose weights were kept ({known}), got {epoch}")
    try:
        trial = json.loads(record.read_text())["trial"]
        problem = problems.get(trial["problem"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise SourceError(
            f"expected run.json to name a problem, got {type(error).__name__}: "
            f"{shorten(str(error))}"
        ) from None
    return Source(problem, read_weights(files[chosen]), f"{problem.name}, epoch {chosen}")


def read_weights(path: Path) -> dict[str, Any]:
    """A state dict from ``.safetensors`` or from torch's own format; no code is executed.

    Raises:
        SourceError: it is neither, or holds something else.
    """
    import torch

    if not path.is_file():
        raise SourceError(f"expected a file of weights, got {shorten(str(path))}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise SourceError("expected the package safetensors, got none: install it") from None
    except Exception as error:
        what = " ".join(str(error).split())
        raise SourceError(
            f"expected a state dict in {shorten(path.name)}, got a file that cannot be read as one "
            f"without executing code: {what[:80]}"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise SourceError(f"expected a dictionary of tensors in {shorten(path.name)}")
    return state


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
