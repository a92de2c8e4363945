"""``optiscope time``: what a step costs, relative to a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optiscope.cli.options import as_json, data_dir_option, json_option

if TYPE_CHECKING:
    from optiscope.train.timing import TimedChunk

__all__ = ["command"]

RATES = {"sgd": 0.01, "momentum": 0.01, "nesterov": 0.01}
DEFAULT_RATE = 1e-3


@click.command("time")
@click.argument("problem")
@click.option(
    "--optimizers",
    default="sgd,momentum,adam",
    show_default=True,
    help="Names or import paths, separated by commas; the first is the reference.",
)
@click.option(
    "--repetitions",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="Rounds in which every optimizer has its turn, after one that warms up.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Per repetition [default: an epoch].")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Samples per step [default: the problem's]."
)
@click.option("--threads", type=click.IntRange(min=1), help="Torch's threads [default: all cores].")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where to measure.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write time.json and the figure (pdf and png) into this folder.",
)
@data_dir_option
@json_option
def command(
    problem: str,
    optimizers: str,
    repetitions: int,
    steps: int | None,
    batch_size: int | None,
    threads: int | None,
    device: str,
    out: Path | None,
    data_dir: Path | None,
    wants_json: bool,
) -> None:
    """Measure seconds per step and epoch of several optimizers on PROBLEM, interleaved.

    Every repetition trains each optimizer in turn; a first one warms up and is left out, and so
    is evaluation. Ratios are paired by repetition. Learning rates are small and fixed: they do
    not change what a step costs. Let nothing else run meanwhile.
    """
    import torch
    from rich.console import Console
    from rich.progress import track

    from optiscope import problems
    from optiscope.optim import registry
    from optiscope.records import Trial
    from optiscope.train.environment import environment
    from optiscope.train.memory import reuse_freed_memory
    from optiscope.train.timing import time_interleaved

    reuse_freed_memory()
    found = problems.get(problem)
    names = [name.strip() for name in optimizers.split(",") if name.strip()]
    bound = [registry.bind(name, _settings(name)) for name in names]
    trials = [
        Trial(
            problem=problem,
            problem_version=found.version,
            optimizer=b.spec.name,
            hyperparameters=dict(b.hyperparameters),
            seed=0,
            epochs=repetitions + 1,
            batch_size=batch_size or found.batch_size,
            device=device,
            threads=threads or torch.get_num_threads(),
        )
        for b in bound
    ]
    chunks = list(
        track(
            time_interleaved(
                trials, found, bound, repetitions=repetitions, steps=steps, data_dir=data_dir
            ),
            description=f"timing {problem}",
            total=repetitions * len(names),
            console=Console(stderr=True),
            transient=True,
        )
    )
    content = {
        "problem": problem,
        "batch_size": trials[0].batch_size,
        "threads": trials[0].threads,
        "reference": names[0],
        "repetitions": repetitions,
        "rows": [_row(name, i, chunks) for i, name in enumerate(names)],
        "environment": environment(torch.device(device)),
    }
    if out is not None:
        _write(out, content)
    if wants_json:
        click.echo(as_json(content))
    else:
        _print(content)


def _settings(name: str) -> dict[str, Any]:
    """A small learning rate for optimizers that have a rate and are tuned by it."""
    from optiscope.optim import registry

    spec = registry.get(name)
    return {"lr": RATES.get(name, DEFAULT_RATE)} if "lr" in spec.space else {}


def _row(name: str, position: int, chunks: list[TimedChunk]) -> dict[str, Any]:
    from dataclasses import asdict
    from statistics import median

    from optiscope.stats.relative_time import time_ratio

    mine = [c for c in chunks if c.position == position]
    reference = [c for c in chunks if c.position == 0]
    phases = sorted({phase for c in mine for phase in c.seconds})
    return {
        "optimizer": name,
        "ratio": asdict(
            time_ratio([c.total.wall for c in mine], [c.total.wall for c in reference])
        ),
        "cpu_ratio": asdict(
            time_ratio([c.total.cpu for c in mine], [c.total.cpu for c in reference])
        ),
        "milliseconds_per_step": 1000 * median(c.total.wall / c.steps for c in mine),
        "cpu_milliseconds_per_step": 1000 * median(c.total.cpu / c.steps for c in mine),
        "seconds_per_epoch": median(c.total.wall / c.steps for c in mine)
        * max(c.steps for c in mine),
        "phases_milliseconds_per_step": {
            phase: 1000 * median(c.seconds[phase].wall / c.steps for c in mine) for phase in phases
        },
        "gradients_per_step": sum(c.gradient_evaluations for c in mine)
        / sum(c.steps for c in mine),
        "hessian_products_per_step": sum(c.hessian_products for c in mine)
        / sum(c.steps for c in mine),
    }


def _print(content: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = (
        f"{content['problem']}, batch {content['batch_size']}, {content['threads']} threads: "
        f"time per step relative to {content['reference']}"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("optimizer", no_wrap=True)
    for column in ("wall", "95 % interval", "CPU", "ms/step", "in step()", "gradients"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in content["rows"]:
        ratio = row["ratio"]
        table.add_row(
            row["optimizer"],
            f"{ratio['median']:.3f}",
            f"{ratio['low']:.2f} to {ratio['high']:.2f}",
            f"{row['cpu_ratio']['median']:.3f}",
            f"{row['milliseconds_per_step']:.2f}",
            f"{row['phases_milliseconds_per_step'].get('optimizer', 0.0):.2f}",
            f"{row['gradients_per_step']:.2f}",
        )
    Console().print(table)


def _write(out: Path, content: dict[str, Any]) -> None:
    from optiscope.records.store import StoreError, explain, write_json_atomically
    from optiscope.report.time_figure import write_time_figure

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json_atomically(out / "time.json", content)
        write_time_figure(content, out)
    except OSError as error:
        raise StoreError(explain(error, out)) from error
