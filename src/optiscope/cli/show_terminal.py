"""A problem's definition on the terminal: tables, class balance, and samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from optiscope.problems.signal_spread import LayerSpread
from optiscope.problems.textbook.trajectory import Trajectory

__all__ = ["print_definition", "print_spreads", "print_walks"]

BAR = 24
"""Characters of the longest bar in the class balance."""

CLASSES_SHOWN = 20


def print_definition(console: Console, found: Mapping[str, Any]) -> None:
    """Definition, layers, groups, splits, class balance and baselines."""
    console.print(Text(found["name"], style="bold"))
    console.print(_facts(found))
    console.print()
    console.print(_layers(found["model"]))
    if len(found["groups"]) > 1 or any(g["l2"] for g in found["groups"]):
        console.print(_groups(found["groups"]))
    classes = found["data"].get("classes")
    if classes:
        console.print(_balance(classes))
    for table in _baselines(found["baselines"]):
        console.print(table)


def _table(title: str = "", **settings: Any) -> Table:
    return Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        **settings,
    )


def _facts(found: Mapping[str, Any]) -> Table:
    data, model = found["data"], found["model"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("model", f"{model['made_by']}: {model['meaning']}")
    frozen = f", and {model['frozen']:,} frozen" if model["frozen"] else ""
    table.add_row("parameters", f"{model['parameters']:,}{frozen}")
    table.add_row("loss", f"{found['loss']['name']}: {found['loss']['meaning']}")
    if found["first_loss"] is not None:
        table.add_row("first loss", f"{found['first_loss']:.6g}, derived")
    table.add_row("metric", found["metric"] or "none: the loss is what counts")
    described = f": {data['description']}" if data["description"] else ""
    table.add_row("data", f"{data['dataset']}{described}" or "your own")
    if data["missing"]:
        table.add_row("", Text(f"not here: {data['missing']}", style="yellow"))
    else:
        sizes = ", ".join(f"{count:,} {name}" for name, count in data["sizes"].items())
        table.add_row("splits", sizes)
        table.add_row("a sample", f"{_shaped(data, 'input')} → {_shaped(data, 'target')}")
        table.add_row("augmentation", data["augmentation"] or "none")
    steps = (
        f", {_count(found['steps_per_epoch'], 'step')} each" if "steps_per_epoch" in found else ""
    )
    table.add_row("batch", f"{found['batch_size']:,}")
    table.add_row("horizon", f"{_count(found['epochs'], 'epoch')}{steps}")
    for word in ("source", "licence"):  # a private problem states neither
        if found[word]:
            table.add_row(word, found[word])
    if found["notes"]:
        table.add_row("notes", found["notes"])
    return table


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _shaped(data: Mapping[str, Any], what: str) -> str:
    shape = "×".join(str(side) for side in data[f"{what}_shape"]) or "one"
    return f"{shape} {data[f'{what}_type']}"


def _layers(model: Mapping[str, Any]) -> Table:
    table = _table("Layers, and their weights as the model draws them")
    table.add_column("layer", overflow="fold")
    table.add_column("kind", overflow="fold")
    for heading in ("output", "parameters", "weight std"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in model["layers"]:
        repeated = f" ({row['calls']} calls)" if row["calls"] > 1 else ""
        shape = row["output_shape"]
        table.add_row(
            row["name"] or "(the model)",
            row["kind"] + repeated,
            "-" if shape is None else "×".join(map(str, shape)) or "one",
            f"{row['parameters']:,}" if row["parameters"] else "",
            "" if row["weight_std"] is None else f"{row['weight_std']:.3g}",
        )
    table.add_section()
    table.add_row("", "", "", f"{model['parameters']:,}", "")
    return table


def _groups(groups: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("Parameter groups")
    table.add_column("group")
    table.add_column("parameters", justify="right")
    table.add_column("regularization")
    table.add_column("rate", justify="right")
    for group in groups:
        table.add_row(
            group["name"],
            f"{group['parameters']:,}",
            f"½ · {group['l2']:g} · ‖w‖²" if group["l2"] else "none",
            f"× {group['lr_scale']:g}",
        )
    return table


def _balance(classes: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("Class balance")
    table.add_column("class", no_wrap=True)
    for heading in ("training", "validation", "test"):
        table.add_column(heading, justify="right")
    table.add_column("share of training", no_wrap=True)
    largest = max(row["training"] for row in classes) or 1
    total = sum(row["training"] for row in classes) or 1
    for row in classes[:CLASSES_SHOWN]:
        share = row["training"] / total
        bar = "█" * max(round(BAR * row["training"] / largest), 1 if row["training"] else 0)
        table.add_row(
            row["class"],
            *(f"{row[name]:,}" for name in ("training", "validation", "test")),
            f"{100 * share:4.1f} % {bar}",
        )
    if len(classes) > CLASSES_SHOWN:
        rest = classes[CLASSES_SHOWN:]
        lowest, highest = (f(row["training"] for row in rest) for f in (min, max))
        table.add_row(f"and {len(rest)} more", f"{lowest:,} to {highest:,}", "", "", "")
    return table


def _baselines(baselines: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """One table for each source, in order of their first results."""
    for source in dict.fromkeys(b["source"] for b in baselines):
        table = _table(f"Published: {source}")
        for heading in ("optimizer", "settings", "mean ± sd over seeds", "seeds", "epochs"):
            number = heading in ("seeds", "epochs")
            table.add_column(
                heading, justify="right" if number else "left", no_wrap=heading.startswith("mean")
            )
        for b in baselines:
            if b["source"] != source:
                continue
            scale, unit = (100.0, " %") if "accuracy" in b["metric"] else (1.0, "")
            table.add_row(
                b["optimizer"],
                ", ".join(f"{key} {value:.4g}" for key, value in b["hyperparameters"].items()),
                f"{scale * b['mean']:.4g} ± {scale * b['std']:.2g}{unit} {_words(b['metric'])}",
                str(b["seeds"]),
                str(b["epochs"]),
            )
        yield table


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def print_spreads(
    console: Console, spreads: Mapping[str, Sequence[LayerSpread]], samples: int
) -> None:
    """One table for each initialisation."""
    for label, rows in spreads.items():
        table = _table(f"Spread at initialisation: {label}, {samples} samples")
        table.add_column("layer", overflow="fold")
        table.add_column("kind", no_wrap=True)
        for heading in ("mean", "std", "zeros", "gradient RMS", "weight gradient RMS"):
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(
                row.name or "(the model)",
                row.kind,
                f"{row.mean:.3g}",
                f"{row.std:.3g}",
                f"{100 * row.zeros:.0f} %",
                "-" if row.gradient is None else f"{row.gradient:.3g}",
                "" if row.weight_gradient is None else f"{row.weight_gradient:.3g}",
            )
        console.print(table)
    console.print(
        "Outputs of each layer over samples and units; gradient of a sample's loss by an output.",
        style="dim",
        highlight=False,
    )


def print_walks(console: Console, walked: Mapping[str, Trajectory]) -> None:
    """Where each optimizer ended."""
    table = _table("Trajectories")
    for heading in ("optimizer", "steps", "end", "loss there", "lowest loss", "gradient at most"):
        left = heading == "optimizer"
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    for label, t in walked.items():
        end = ", ".join(f"{v:.4g}" for v in t.points[-1])
        table.add_row(
            label,
            f"{t.steps}, then diverged" if t.diverged else str(t.steps),
            f"({end})",
            f"{t.losses[-1]:.4g}",
            f"{t.losses.min():.4g}",
            f"{t.gradient_norms.max():.4g}" if t.steps else "-",
        )
    console.print(table)
