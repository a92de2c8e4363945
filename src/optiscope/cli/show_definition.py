"""Everything that is known of a problem, as plain values."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from optiscope.cli.function_words import meaning_of, name_of
from optiscope.data import DATASETS, MissingData
from optiscope.data.samples import Batch, Samples, Splits
from optiscope.problems import Problem
from optiscope.problems.initialisation import initialise
from optiscope.problems.marginals import class_counts, training_targets
from optiscope.problems.model_summary import model_summary
from optiscope.problems.signal_spread import LayerSpread, signal_spread

__all__ = ["class_names", "definition", "load", "model_with", "some_batch", "spreads"]

SEED = 0
"""Of the weights that are summarised and measured."""


def load(problem: Problem, data_dir: Path | None) -> tuple[Splits | None, str]:
    """The splits, or None and the reason why the data are not here."""
    try:
        return problem.data(data_dir), ""
    except MissingData as error:
        return None, str(error)


def model_with(problem: Problem, rule: dict[str, Any] | None, splits: Splits | None) -> nn.Module:
    """The model of seed 0, its weights redrawn by ``rule`` unless that is None."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = problem.make_model()
        if rule is not None:
            initialise(model, rule, targets=splits.train if splits else None)
    return model


def some_batch(splits: Splits, count: int) -> Batch:
    """Training samples evenly spread over the training set, without augmentation."""
    size = len(splits.train)
    return splits.train.select(torch.linspace(0, size - 1, min(count, size)).long())


def spreads(
    problem: Problem, splits: Splits, rules: dict[str, dict[str, Any] | None], count: int
) -> dict[str, list[LayerSpread]]:
    """Spread of activations and gradients under each initialisation, over ``count`` samples."""
    batch = some_batch(splits, count)
    return {
        label: signal_spread(model_with(problem, rule, splits), problem.loss, batch)
        for label, rule in rules.items()
    }


def definition(problem: Problem, splits: Splits | None, missing: str) -> dict[str, Any]:
    """The definition for machines; what only the data tell is left out where they are not here."""
    model = model_with(problem, None, splits)
    inputs = some_batch(splits, 2).inputs if splits else None
    made = problem.make_model
    if name_of(made).startswith(("_", "<lambda>")):
        made = type(model)
    found: dict[str, Any] = {
        "name": problem.name,
        "version": problem.version,
        "model": {
            "made_by": name_of(made),
            "meaning": meaning_of(made),
            "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "frozen": sum(p.numel() for p in model.parameters() if not p.requires_grad),
            "layers": [dataclasses.asdict(row) for row in model_summary(model, inputs)],
        },
        "loss": {"name": name_of(problem.loss), "meaning": meaning_of(problem.loss)},
        "first_loss": problem.first_loss,
        "metric": problem.metric.name if problem.metric else None,
        "groups": [
            {
                "name": group.get("name", "all parameters"),
                "parameters": sum(p.numel() for p in group["params"]),
                "l2": group.get("l2", 0.0),
                "lr_scale": group.get("lr_scale", 1.0),
            }
            for group in problem.param_groups(model)
        ],
        "batch_size": problem.batch_size,
        "epochs": problem.epochs,
        "data": _data_of(problem, splits, missing),
        "source": problem.source,
        "licence": problem.licence,
        "notes": problem.notes,
        "baselines": [dataclasses.asdict(b) for b in problem.baselines],
    }
    if splits is not None:
        found["steps_per_epoch"] = len(splits.train) // problem.batch_size
    return found


def _data_of(problem: Problem, splits: Splits | None, missing: str) -> dict[str, Any]:
    known = DATASETS.get(problem.dataset)
    found: dict[str, Any] = {
        "dataset": problem.dataset,
        "description": known.description if known else None,
        "from": known.source if known else None,
        "missing": missing or None,
    }
    if splits is None:
        return found
    batch = some_batch(splits, 1)
    found |= {
        "sizes": {
            "training": len(splits.train),
            "training evaluation": len(splits.train_eval),
            "validation": len(splits.valid),
            "test": len(splits.test),
        },
        "input_shape": _shape_of(batch.inputs),
        "input_type": _type_of(batch.inputs),
        "target_shape": _shape_of(batch.targets),
        "target_type": _type_of(batch.targets),
        "augmentation": name_of(splits.augment) if splits.augment else None,
        "classes": _balance(problem, splits),
    }
    return found


def _shape_of(tree: Any) -> Any:
    """Shape of one sample, for each tensor of a pytree."""
    if isinstance(tree, torch.Tensor):
        return list(tree.shape[1:])
    return tree_map(lambda t: list(t.shape[1:]) if isinstance(t, torch.Tensor) else None, tree)


def _type_of(tree: Any) -> Any:
    """Type of the numbers, for each tensor of a pytree."""

    def word(leaf: Any) -> str:
        is_tensor = isinstance(leaf, torch.Tensor)
        return str(leaf.dtype).removeprefix("torch.") if is_tensor else type(leaf).__name__

    return tree_map(word, tree)


def _balance(problem: Problem, splits: Splits) -> list[dict[str, Any]] | None:
    """Name of each class and its samples in training, validation and test; None without classes."""
    sets: dict[str, Samples] = {
        "training": splits.train,
        "validation": splits.valid,
        "test": splits.test,
    }
    if not _has_labels(splits):
        return None
    targets = {name: training_targets(samples) for name, samples in sets.items()}
    classes = max(int(t.max()) for t in targets.values()) + 1
    names = class_names(problem, classes)
    counts = {name: class_counts(t, classes).tolist() for name, t in targets.items()}
    return [{"class": names[k], **{s: counts[s][k] for s in sets}} for k in range(classes)]


def _has_labels(splits: Splits) -> bool:
    """Whether a target is one integer, held in memory rather than decoded with its input."""
    held = getattr(splits.train, "targets", None)
    return isinstance(held, torch.Tensor) and held.ndim == 1 and not held.is_floating_point()


def class_names(problem: Problem, classes: int) -> list[str]:
    """Names of the data set's classes, or their numbers."""
    known = DATASETS.get(problem.dataset)
    if known and len(known.classes) == classes:
        return list(known.classes)
    return [str(k) for k in range(classes)]
