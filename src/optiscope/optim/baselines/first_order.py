"""First-order optimizers by name: torch's own, and untuned ones from their own packages.

Search spaces follow Choi et al. 2019 and Schmidt et al. 2021: wide, logarithmic, one
hyperparameter (the learning rate) unless a study says more.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from optiscope.errors import OptiscopeError
from optiscope.optim.baselines.muon import MuonWithAdamW
from optiscope.optim.spec import OptimizerSpec, Range

__all__ = ["SPECS", "MissingExtraError"]

TORCH = "torch.optim"
ADAPTIVE_RATE = Range(1e-5, 1e-1)
SGD_RATE = Range(1e-3, 1e1)
MOMENTUM_RATE = Range(1e-4, 1e0)


class MissingExtraError(OptiscopeError, ImportError):
    """An optimizer's own package is not installed; the message says how to get it."""


def _with_betas(optimizer: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """Take ``beta1`` and ``beta2`` as hyperparameters of their own, as search spaces want them."""

    def make(
        params: Any, *, beta1: float | None = None, beta2: float | None = None, **settings: Any
    ) -> Optimizer:
        if beta1 is not None or beta2 is not None:
            if "betas" in settings:
                raise ValueError("expected either betas or beta1 and beta2, got both")
            own = inspect.signature(inspect.unwrap(optimizer)).parameters["betas"].default
            settings["betas"] = (
                own[0] if beta1 is None else beta1,
                own[1] if beta2 is None else beta2,
            )
        return optimizer(params, **settings)

    return functools.update_wrapper(make, optimizer, assigned=(), updated=())


@dataclass(frozen=True)
class _FromPackage:
    """An optimizer of another package, imported when it is made or its signature is read."""

    module: str
    attribute: str
    package: str

    @property
    def __wrapped__(self) -> Callable[..., Optimizer]:
        try:
            found: Callable[..., Optimizer] = getattr(
                importlib.import_module(self.module), self.attribute
            )
        except ImportError:
            raise MissingExtraError(
                f"{self.attribute} needs the package {self.package}: "
                "install it with `pip install 'optiscope[optimizers]'`"
            ) from None
        return found

    def __call__(self, params: Any, **settings: Any) -> Optimizer:
        make = self.__wrapped__
        known = inspect.signature(make).parameters
        for name in settings:
            if name not in known:  # some swallow what they do not know
                raise TypeError(f"got an unexpected keyword argument {name!r}")
        return make(params, **settings)


SPECS: tuple[OptimizerSpec, ...] = (
    OptimizerSpec("sgd", torch.optim.SGD, {}, {"lr": SGD_RATE}, source=TORCH),
    OptimizerSpec(
        "momentum", torch.optim.SGD, {"momentum": 0.9}, {"lr": MOMENTUM_RATE}, source=TORCH
    ),
    OptimizerSpec(
        "nesterov",
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True},
        {"lr": MOMENTUM_RATE},
        source=TORCH,
    ),
    OptimizerSpec("adam", _with_betas(torch.optim.Adam), {}, {"lr": ADAPTIVE_RATE}, source=TORCH),
    OptimizerSpec(
        "adamw",
        _with_betas(torch.optim.AdamW),
        {"weight_decay": 0.01},
        {"lr": ADAPTIVE_RATE},
        source=TORCH,
    ),
    OptimizerSpec("nadam", _with_betas(torch.optim.NAdam), {}, {"lr": ADAPTIVE_RATE}, source=TORCH),
    OptimizerSpec("radam", _with_betas(torch.optim.RAdam), {}, {"lr": ADAPTIVE_RATE}, source=TORCH),
    OptimizerSpec(
        "adamax", _with_betas(torch.optim.Adamax), {}, {"lr": ADAPTIVE_RATE}, source=TORCH
    ),
    OptimizerSpec("adagrad", torch.optim.Adagrad, {}, {"lr": Range(1e-4, 1.0)}, source=TORCH),
    OptimizerSpec("adadelta", torch.optim.Adadelta, {}, {"lr": Range(1e-2, 1e1)}, source=TORCH),
    OptimizerSpec("adafactor", torch.optim.Adafactor, {}, {"lr": Range(1e-4, 1.0)}, source=TORCH),
    OptimizerSpec("rmsprop", torch.optim.RMSprop, {}, {"lr": ADAPTIVE_RATE}, source=TORCH),
    OptimizerSpec("rprop", torch.optim.Rprop, {}, {"lr": ADAPTIVE_RATE}, source=TORCH),
    OptimizerSpec("asgd", torch.optim.ASGD, {}, {"lr": SGD_RATE}, source=TORCH),
    OptimizerSpec(
        "muon",
        MuonWithAdamW,
        {},
        {"lr": Range(1e-4, 1e-1)},
        source="torch.optim.Muon on hidden weights, torch.optim.AdamW on the rest",
        model="model",
        version=1,  # None: kernels to AdamW, embeddings to Muon
    ),
    OptimizerSpec(
        "soap",
        _with_betas(_FromPackage("pytorch_optimizer", "SOAP", "pytorch_optimizer")),
        {},
        {"lr": Range(1e-4, 1e-1)},
        source="pytorch_optimizer (Vyas et al. 2024)",
    ),
    OptimizerSpec(
        "shampoo",
        _with_betas(_FromPackage("pytorch_optimizer", "ScalableShampoo", "pytorch_optimizer")),
        {},
        {"lr": Range(1e-5, 1e-1)},
        source="pytorch_optimizer (Gupta et al. 2018, Anil et al. 2020)",
    ),
    OptimizerSpec(
        "psgd_kron",
        _FromPackage("pytorch_optimizer", "Kron", "pytorch_optimizer"),
        {"balance_prob": 0.0},
        {"lr": Range(1e-5, 1e-1)},
        source="pytorch_optimizer (Li 2018), without its balancing, which draws from NumPy's seed",
    ),
    OptimizerSpec(
        "schedulefree_sgd",
        _FromPackage("schedulefree", "SGDScheduleFree", "schedulefree"),
        {},
        {"lr": SGD_RATE},
        source="schedulefree (Defazio et al. 2024)",
        version=1,  # None: batch norm's statistics were those of the training weights
    ),
    OptimizerSpec(
        "schedulefree_adamw",
        _with_betas(_FromPackage("schedulefree", "AdamWScheduleFree", "schedulefree")),
        {"lr": 0.0025},
        {},
        source="schedulefree (Defazio et al. 2024), at its default rate",
        version=1,
    ),
    OptimizerSpec(
        "prodigy",
        _with_betas(_FromPackage("prodigyopt", "Prodigy", "prodigyopt")),
        {},
        {},
        source="prodigyopt (Mishchenko & Defazio 2023)",
    ),
    OptimizerSpec(
        "dadapt_sgd",
        _FromPackage("dadaptation", "DAdaptSGD", "dadaptation"),
        {},
        {},
        source="dadaptation (Defazio & Mishchenko 2023)",
    ),
    OptimizerSpec(
        "dadapt_adam",
        _with_betas(_FromPackage("dadaptation", "DAdaptAdam", "dadaptation")),
        {},
        {},
        source="dadaptation (Defazio & Mishchenko 2023)",
    ),
)
