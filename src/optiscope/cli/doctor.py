"""``optiscope doctor``: score tools that look for faults in training."""

from __future__ import annotations

from typing import Any

import click

from optiscope.cli.options import as_json, json_option
from optiscope.errors import OptiscopeError
from optiscope.hints import did_you_mean
from optiscope.import_path import load

__all__ = ["command"]


class UnknownKind(OptiscopeError, ValueError):
    """A kind of fault that the suite does not have."""


class UnknownTool(OptiscopeError, ValueError):
    """An import path that leads to no adapter of a tool."""


@click.group("doctor")
def command() -> None:
    """Score tools that look for faults in training; compare activations."""


class SetupMisfit(OptiscopeError, ValueError):
    """A set-up whose activations cannot be compared."""


@command.command("activations")
@click.argument("setup", metavar="MODULE:FUNCTION")
@click.option(
    "--steps",
    type=click.IntRange(min=10),
    default=150,
    show_default=True,
    help="Steps of each run.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=2),
    default=4,
    show_default=True,
    help="Pairs of runs; a pair shares weights, batches and dropout.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Samples in a batch.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Rate of Adam.",
)
@json_option
def activations(
    setup: str, steps: int, seeds: int, batch_size: int, rate: float, wants_json: bool
) -> None:
    """Train short pairs of runs, with the model's activations and with relu for tanh and sigmoid.

    MODULE:FUNCTION names a function that returns a dictionary with model, loss and train, as for
    `optiscope check`. The answer is the difference of the training losses with a 95 % interval over
    the seeds.
    """
    from optiscope.cli.check import setup_arguments
    from optiscope.doctor.comparison import compare_activations
    from optiscope.doctor.user_data import split_from

    values = setup_arguments(setup)
    samples = split_from("train", values["train"]).read(100_000, 20.0)
    if samples.targets is None:
        raise SetupMisfit(f"{setup}: the training samples have no targets; return pairs (x, y)")
    try:
        result = compare_activations(
            values["model"], values["loss"], samples.inputs, samples.targets,
            steps=steps, batch_size=batch_size, rate=rate, seeds=range(seeds),
        )  # fmt: skip
    except ValueError as error:
        raise SetupMisfit(f"{setup}: {error}") from error
    if wants_json:
        click.echo(as_json({**vars(result), "faster": result.faster, "sentence": result.sentence}))
        return
    click.echo(result.sentence)
    for seed, (before, after) in enumerate(zip(result.before, result.after, strict=True)):
        click.echo(f"  seed {seed}: {before:.4g} -> {after:.4g}")


@command.command("bugs")
@click.option("--tool", metavar="MODULE:ADAPTER", help="Tool to score [default: optiscope.watch].")
@click.option(
    "--kinds",
    type=click.Choice(["public", "held-back", "held-back-second", "all"]),
    default="public",
    show_default=True,
    help="Which kinds of fault to run.",
)
@click.option("--only", multiple=True, metavar="KIND", help="Run this kind; may be repeated.")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Seeds of each script.",
)
@click.option("--clean", type=click.IntRange(min=0), default=0, help="Number of healthy runs.")
@click.option("--clean-seed", type=int, default=1, show_default=True, help="Seed for --clean.")
@click.option("--list", "wants_list", is_flag=True, help="List the kinds and run nothing.")
@json_option
def bugs(
    tool: str | None,
    kinds: str,
    only: tuple[str, ...],
    seeds: int,
    clean: int,
    clean_seed: int,
    wants_list: bool,
    wants_json: bool,
) -> None:
    """Run faulty scripts and their mended twins, and score what a tool says of them.

    An adapter is a function attach(model, optimizer, criterion, scheduler=...) that returns an
    object with findings. Warnings and errors count; a symptom is no hit.
    """
    from optiscope.testing.bugs.score import KINDS, Outcome, our_adapter, score_tool

    chosen = KINDS[kinds]
    for name in only:
        if name not in KINDS["all"]:
            raise UnknownKind(f"no kind of fault {name!r}, {did_you_mean(name, KINDS['all'])}")
    if only:
        chosen = {name: KINDS["all"][name] for name in only}
    if wants_list:
        rows = [{"kind": k.name, "bases": list(k.bases), "words": k.words} for k in chosen.values()]
        lines = "\n".join(f"{r['kind']:<36}{', '.join(r['bases'])}" for r in rows)
        click.echo(as_json(rows) if wants_json else lines)
        return
    attach: Any = our_adapter
    if tool is not None:
        attach = load(tool, "an adapter", "my_module:attach", UnknownTool)
    label = tool or "optiscope.watch"

    def tell(outcome: Outcome) -> None:
        if wants_json:
            return
        what = outcome.kind or "clean"
        what += "" if outcome.faulty else " (sound)"
        if outcome.faulty:
            verdict = "first" if outcome.first else "named" if outcome.named else "MISSED"
        else:
            verdict = "FALSE ALARM" if outcome.alarms else "silent"
        said = ", ".join(outcome.alarms) or "-"
        click.echo(f"{verdict:<12}{what:<44}{outcome.base:<16}{said}{outcome.failed}")

    score = score_tool(
        attach,
        kinds=chosen,
        seeds=range(seeds),
        clean=clean,
        clean_seed=clean_seed,
        tell=tell,
    )
    if wants_json:
        click.echo(as_json({"tool": label, **score.to_dict()}))
        return
    click.echo(f"\n{label}")
    for name, value in score.summary().items():
        click.echo(f"  {name:<26}{value}")
