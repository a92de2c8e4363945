"""All that a run is made of, as plain values, and a run that goes on from them."""

from __future__ import annotations

import os
import platform
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from optiscope.records import Measurement, Seconds
from optiscope.train.seeds import generator_states, restore_generators

if TYPE_CHECKING:
    from optiscope.train.loop import Training

__all__ = ["identity_of", "restore", "session", "state_of"]

TRUSTED = ("torch", "optiscope", "pytorch_optimizer", "schedulefree")
"""Packages whose optimizers keep all their state in ``state_dict``; tests say so of the shipped."""


def identity_of(training: Training) -> dict[str, Any]:
    """What must be equal for a run to go on from a state."""
    return {
        "trial": training.trial.hash,
        "torch": str(torch.__version__),
        "device": training.device.type,
        "schema": training.trial.schema,
    }


def session(step: int) -> dict[str, Any]:
    """Where this process is, and the step at which it takes a run up."""
    return {
        "host": platform.node(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "from_step": step,
    }


def state_of(training: Training) -> dict[str, Any]:
    """Everything that decides what a run does from here on, and what it has measured."""
    midway = training.position > 0
    order = training.order_state if midway else training.random.order.get_state()
    schedule = training.schedule
    return {
        "identity": identity_of(training),
        "epoch": training.epoch,
        "position": training.position,
        "order": order,
        "augmentation": training.random.augmentation.get_state(),
        "generators": generator_states(training.device),
        "model": dict(training.model.state_dict()),
        "buffers": dict(training.model.named_buffers()),
        "optimizer": training.optimizer.state_dict(),
        "attributes": plain_attributes(training.optimizer),
        "schedule": None if schedule is None else schedule.scheduler.state_dict(),
        "instruments": training.instruments.states(),
        "gradient": training.stepping.gradient.state(),
        "metrics": [list(row) for row in training.metrics],
        "step": training.step,
        "counts": training.counts(),
        "seconds": {k: list(v) for k, v in training.clock.seconds().items()},
        "elapsed": perf_counter() - training.began,
        "started": training.started,
        "sessions": training.sessions,
    }


def restore(training: Training, state: dict[str, Any]) -> None:
    """Have a fresh run go on from a state."""
    training.epoch, training.position = state["epoch"], state["position"]
    training.model.load_state_dict(state["model"])
    buffers = dict(training.model.named_buffers())
    with torch.no_grad():
        for name, value in state["buffers"].items():
            buffers[name].copy_(value)
    training.optimizer.load_state_dict(state["optimizer"])
    vars(training.optimizer).update(state["attributes"])
    if training.schedule is not None:
        training.schedule.scheduler.load_state_dict(state["schedule"])
    training.instruments.restore(state["instruments"])
    training.stepping.gradient.restore(state.get("gradient"))
    training.step = state["step"]
    for row in state["metrics"]:
        measured = Measurement(*row)
        training.metrics.append(measured)
        training.latest[f"{measured.split}_{measured.name}"] = measured.value
    training.stepping.gradient_evaluations = state["counts"]["gradient_evaluations"]
    here = training.counts()["hessian_products"]
    training.earlier_products = state["counts"]["hessian_products"] - here
    training.clock.add({k: Seconds(*v) for k, v in state["seconds"].items()})
    training.began = perf_counter() - state["elapsed"]
    training.started = state["started"]
    training.sessions = [*state["sessions"], session(training.step)]
    training.random.order.set_state(state["order"])
    training.random.augmentation.set_state(state["augmentation"])
    restore_generators(state["generators"], training.device)


def plain_attributes(optimizer: Optimizer) -> dict[str, Any]:
    """What an optimizer of unknown make keeps beside its ``state_dict``, where that is plain.

    Raises:
        ValueError: it keeps tensors in a form that a checkpoint cannot hold.
    """
    if type(optimizer).__module__.partition(".")[0] in TRUSTED:
        return {}
    known = set(vars(Optimizer([torch.zeros(1)], {}))) | {"_opt_called"}
    plain = {}
    for name, value in vars(optimizer).items():
        if name in known or callable(value):
            continue
        if _is_plain(value):
            plain[name] = value
        elif _holds_tensors(value):
            where = f"{type(optimizer).__name__}.{name}"
            raise ValueError(f"{where} holds tensors outside of the optimizer's state")
    return plain


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, str | int) and _is_plain(v) for k, v in value.items())
    return type(value) is torch.Tensor or isinstance(value, bool | int | float | str | None)


def _holds_tensors(value: Any, depth: int = 3) -> bool:
    if isinstance(value, torch.Tensor):
        return True
    if depth == 0:
        return False
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    if not isinstance(inner, list | tuple | set | frozenset):
        inner = list(vars(value).values()) if hasattr(value, "__dict__") else []
    return any(_holds_tensors(one, depth - 1) for one in inner)
