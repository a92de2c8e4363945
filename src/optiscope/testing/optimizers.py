"""Conformance suite for an optimizer: what a study, a checkpoint and a user expect of it.

Subclass it in a test file and let pytest collect it::

    class TestMine(OptimizerConformance):
        optimizer = "my_package.my_module:MyOptimizer"
        hyperparameters = {"lr": 0.05}
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from optiscope import problems
from optiscope.optim import registry
from optiscope.optim.spec import OptimizerSpec
from optiscope.records import Run, Status, Trial
from optiscope.train import run_trial
from optiscope.train.step import has_modes

__all__ = ["OptimizerConformance"]


class OptimizerConformance:
    """It learns, repeats itself, goes on from its state, and bears what real networks hold.

    Attributes:
        optimizer: a name, an import path, a class or a spec.
        hyperparameters: with which it learns on a small network.
        resumes: whether its state can be saved and loaded without running code; where it cannot,
            an interrupted trial starts over.
        steps: of each test.
    """

    optimizer: ClassVar[str | type[Optimizer] | OptimizerSpec]
    hyperparameters: ClassVar[Mapping[str, Any]] = {}
    resumes: ClassVar[bool] = True
    steps: ClassVar[int] = 8

    def bound(self) -> registry.BoundOptimizer:
        """The optimizer with its hyperparameters."""
        return registry.bind(self.optimizer, dict(self.hyperparameters))

    def model(self) -> nn.ModuleDict:
        """A small network with a layer that is frozen and one that nothing uses."""
        torch.manual_seed(0)
        model = nn.ModuleDict(
            {
                "first": nn.Linear(6, 8),
                "frozen": nn.Linear(8, 8),
                "unused": nn.Linear(3, 3),
                "last": nn.Linear(8, 3),
            }
        )
        model["frozen"].requires_grad_(False)
        return model

    def make(self, model: nn.Module) -> Optimizer:
        """The optimizer of a model, in training mode where it has modes."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        groups = [{"params": parameters[:2]}, {"params": parameters[2:]}]
        made = self.bound()(groups, horizon=2 * self.steps, steps_per_epoch=self.steps)
        if has_modes(made):
            made.train()
        return made

    def train(
        self, model: nn.ModuleDict, optimizer: Optimizer, first: int, last: int
    ) -> list[float]:
        """Losses of the steps from ``first`` to ``last``, each on a batch of its own."""
        losses = []
        for number in range(first, last):
            generator = torch.Generator().manual_seed(number)
            inputs = torch.randn(16, 6, generator=generator, dtype=_dtype(model))
            targets = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0.5).long()

            def closure(inputs: Tensor = inputs, targets: Tensor = targets) -> Tensor:
                optimizer.zero_grad()
                hidden = torch.tanh(model["frozen"](model["first"](inputs)))
                loss = F.cross_entropy(model["last"](hidden), targets)
                loss.backward()
                losses.append(loss.item())
                return loss

            torch.manual_seed(number)
            if self.bound().closure:
                step: Any = optimizer.step  # torch types a closure as one that returns a float
                step(closure)
            else:
                closure()
                optimizer.step()
        return losses

    def run(self, **changes: Any) -> Run:
        """A run on the digits."""
        problem, bound = problems.get("digits_mlp"), self.bound()
        values = {"seed": 1, "epochs": 2, "batch_size": 64} | changes
        trial = Trial(
            "digits_mlp", problem.version, bound.spec.name, bound.hyperparameters, **values
        )
        return run_trial(trial, problem, bound)

    def test_it_learns(self) -> None:
        """Two epochs lower the loss of the digits, and its run reaches its horizon."""
        run = self.run()
        losses = run.curve("train", "loss")[1]
        assert run.status is Status.FINISHED, run.reason
        assert losses[-1] < losses[0]

    def test_it_repeats_itself(self) -> None:
        """Equal trials give equal measurements, bit for bit; other seeds give others."""
        first, second, other = self.run(), self.run(), self.run(seed=2)
        assert first.metrics == second.metrics
        assert first.metrics != other.metrics

    def test_it_goes_on_from_its_state(self) -> None:
        """Saved, loaded without running code and continued, it does what it would have done."""
        if not self.resumes:
            return
        model = self.model()
        optimizer = self.make(model)
        self.train(model, optimizer, 0, self.steps)
        saved = io.BytesIO()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, saved)
        expected = self.train(model, optimizer, self.steps, 2 * self.steps)
        saved.seek(0)
        state = torch.load(saved, weights_only=True)
        again = self.model()
        again.load_state_dict(state["model"])
        other = self.make(again)
        other.load_state_dict(state["optimizer"])
        assert self.train(again, other, self.steps, 2 * self.steps) == expected

    def test_what_has_no_gradient_stays(self) -> None:
        """Frozen and unused parameters are as they were."""
        model = self.model()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.train(model, self.make(model), 0, self.steps)
        for name, parameter in model.named_parameters():
            if name.startswith(("frozen", "unused")):
                assert torch.equal(parameter, before[name]), f"{name} moved"
        assert not torch.equal(model.get_parameter("last.weight"), before["last.weight"])

    def test_it_trains_in_double_precision(self) -> None:
        """Parameters keep their type, and so does the state that has their shape."""
        model = self.model().double()
        losses = self.train(model, self.make(model), 0, self.steps)
        assert all(p.dtype is torch.float64 for p in model.parameters())
        assert all(loss == loss for loss in losses)

    def test_a_group_may_join_later(self) -> None:
        """Or it is refused, and not half taken in."""
        model = self.model()
        optimizer = self.make(model)
        extra = nn.Linear(2, 2)
        try:
            optimizer.add_param_group({"params": list(extra.parameters())})
        except (ValueError, RuntimeError, NotImplementedError):
            assert len(optimizer.param_groups) == 2
            return
        self.train(model, optimizer, 0, 2)

    def test_rates_can_be_scheduled(self) -> None:
        """Every group has a rate that a schedule can change, where it has one at all."""
        model = self.model()
        optimizer = self.make(model)
        if all("lr" in group for group in optimizer.param_groups):
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * 0.0
            before = model.get_parameter("last.weight").detach().clone()
            self.train(model, optimizer, 0, 1)
            moved = (model.get_parameter("last.weight") - before).abs().max()
            assert moved <= 1e-6


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype
