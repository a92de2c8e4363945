"""Conformance suite for a problem: what every problem must satisfy to be run and compared.

Subclass it in a test file and let pytest collect it::

    class TestMine(ProblemConformance):
        problem = "my_package.my_module:my_problem"

Index legend: N samples in a split, B samples in a batch.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from optiscope.data.samples import Batch, Samples, Splits
from optiscope.problems.problem import Problem
from optiscope.problems.registry import get

__all__ = ["ProblemConformance"]

GROUP_KEYS = {"params", "l2", "lr_scale", "name"}


class ProblemConformance:
    """Determinism, fixed and disjoint splits, stable first loss, per-sample losses, float64.

    Attributes:
        problem: a `Problem`, its name, or its import path.
        data_dir: passed to the problem's ``data``.
        batch: samples in the batches that the tests use.
        duplicates: largest share of validation or test samples whose content may also occur in
            training; published data sets contain a few doubles.
        first_loss_tolerance: largest relative difference between the mean loss over the test set
            at the start and the problem's ``first_loss``.
    """

    problem: ClassVar[Problem | str]
    data_dir: ClassVar[str | Path | None] = None
    batch: ClassVar[int] = 8
    duplicates: ClassVar[float] = 0.01
    first_loss_tolerance: ClassVar[float] = 0.02

    subject: ClassVar[Problem]
    splits: ClassVar[Splits]

    @classmethod
    def setup_class(cls) -> None:
        """Resolve the problem and load its data once for all tests."""
        cls.subject = cls.problem if isinstance(cls.problem, Problem) else get(cls.problem)
        torch.manual_seed(0)
        cls.splits = cls.subject.data(cls.data_dir)

    @classmethod
    def teardown_class(cls) -> None:
        """Let go of the data."""
        del cls.splits

    def model(self, seed: int = 0) -> nn.Module:
        """The problem's model with the weights of that seed, in evaluation mode."""
        torch.manual_seed(seed)
        return self.subject.make_model().eval()

    def first(self, samples: Samples, count: int | None = None) -> Batch:
        """The first ``count`` samples of a set, `batch` of them by default."""
        return samples.select(torch.arange(min(count or self.batch, len(samples))))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Per-sample losses [B]."""
        return self.subject.loss(model(batch.inputs), batch.targets)

    def test_parameters_are_as_many_as_stated(self) -> None:
        """The number of trainable parameters is the problem's ``parameters``."""
        count = sum(p.numel() for p in self.model().parameters() if p.requires_grad)
        assert count == self.subject.parameters

    def test_a_seed_determines_the_weights(self) -> None:
        """Two models of one seed are equal, whatever was made and trained in between."""
        before = self.model(seed=0)
        other = self.model(seed=1)
        self.losses(other, self.first(self.splits.train)).mean().backward()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.sub_(0.1)
        after = self.model(seed=0)
        for name, value in before.state_dict().items():
            assert torch.equal(value, after.state_dict()[name]), f"{name} differs on second use"

    def test_models_share_no_memory(self) -> None:
        """Changing one model in place leaves another unchanged."""
        one, two = self.model(), self.model()
        places = {value.data_ptr() for value in one.state_dict().values() if value.numel()}
        shared = [n for n, v in two.state_dict().items() if v.numel() and v.data_ptr() in places]
        assert not shared, f"two models share {shared}"

    def test_splits_are_the_same_in_every_call(self) -> None:
        """Neither the run's seed nor an earlier call changes the splits."""
        torch.manual_seed(12345)
        again = self.subject.data(self.data_dir)
        for name, samples in _named(self.splits).items():
            other = _named(again)[name]
            assert len(samples) == len(other), f"{name} has another size on second use"
            spread = torch.linspace(0, len(samples) - 1, min(64, len(samples))).long()
            ours, theirs = samples.select(spread), other.select(spread)
            assert torch.equal(ours.inputs, theirs.inputs), f"{name} has other inputs"
            assert torch.equal(ours.targets, theirs.targets), f"{name} has other targets"

    def test_splits_are_disjoint(self) -> None:
        """Validation and test samples are not trained on, and evaluated ones are."""
        contents = {name: _contents(samples) for name, samples in _named(self.splits).items()}
        trained = contents["train"]
        missing = contents["train_eval"] - trained
        assert not missing, f"{missing.total()} training-evaluation samples are not trained on"
        for ours, theirs in (("valid", "train"), ("test", "train"), ("test", "valid")):
            common = sum(n for key, n in contents[ours].items() if key in contents[theirs])
            allowed = self.duplicates * contents[ours].total()
            assert common <= allowed, f"{common} {ours} samples also occur in {theirs}"

    def test_no_split_is_empty(self) -> None:
        """Every set has samples, and training has at least one whole batch."""
        assert all(len(samples) > 0 for samples in _named(self.splits).values())
        assert len(self.splits.train) >= self.subject.batch_size, "training makes no step"

    def test_first_loss(self) -> None:
        """The mean loss before training is finite, repeatable and, where derived, as derived."""
        count = 256 if self.subject.first_loss is None else len(self.splits.test)
        batch = self.first(self.splits.test, count)
        with torch.no_grad():
            loss = self.losses(self.model(), batch).mean().item()
            again = self.losses(self.model(), batch).mean().item()
        assert loss == again, f"first loss {loss} became {again}"
        assert abs(loss) < float("inf"), f"first loss is {loss}"
        expected = self.subject.first_loss
        if expected is not None:
            assert abs(loss - expected) <= self.first_loss_tolerance * abs(expected), (
                f"first loss is {loss}, derived {expected}"
            )

    def test_losses_are_per_sample(self) -> None:
        """A batch's losses have shape [B], and each is what its sample alone gives."""
        model, batch = self.model().double(), _double(self.first(self.splits.valid))
        with torch.no_grad():
            together = self.losses(model, batch)
            alone = [
                self.losses(model, Batch(x[None], y[None])) for x, y in zip(*batch, strict=True)
            ]
        assert together.shape == (len(batch.targets),), f"losses have shape {together.shape}"
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-9)

    def test_metric_is_per_sample(self) -> None:
        """The figure of merit has shape [B] and is finite."""
        metric, batch = self.subject.metric, self.first(self.splits.test)
        if metric is None:
            return
        with torch.no_grad():
            values = metric.compute(self.model()(batch.inputs), batch.targets)
        assert values.shape == (len(batch.targets),), f"values have shape {values.shape}"
        assert values.isfinite().all()

    def test_works_in_float64(self) -> None:
        """In double precision the losses are double, and close to those in single precision."""
        model, batch = self.model(), self.first(self.splits.test)
        with torch.no_grad():
            single = self.losses(model, batch)
            double = self.losses(model.double(), _double(batch))
        assert double.dtype == torch.float64, f"losses came out as {double.dtype}"
        torch.testing.assert_close(single.double(), double, rtol=2e-3, atol=2e-3)

    def test_groups_partition_the_parameters(self) -> None:
        """Every trainable parameter is in exactly one group, with settings that make sense."""
        model = self.model()
        groups = self.subject.param_groups(model)
        counted = Counter(id(p) for group in groups for p in group["params"])
        expected = Counter(id(p) for p in model.parameters() if p.requires_grad)
        assert counted == expected, "groups leave a parameter out or name it twice"
        for group in groups:
            unknown = set(group) - GROUP_KEYS
            assert not unknown, f"unknown settings {sorted(unknown)}: use {sorted(GROUP_KEYS)}"
            assert group.get("l2", 0.0) >= 0.0
            assert group.get("lr_scale", 1.0) > 0.0

    def test_every_parameter_is_trained(self) -> None:
        """In training mode every parameter gets a finite gradient, and some gradient is not 0."""
        model = self.model().train()
        self.losses(model, self.first(self.splits.train)).mean().backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        without = [name for name, gradient in gradients.items() if gradient is None]
        assert not without, f"no gradient for {without}"
        assert all(g is not None and g.isfinite().all() for g in gradients.values())
        assert any(g is not None and g.abs().sum() > 0 for g in gradients.values())

    def test_a_small_step_downhill_lowers_the_loss(self) -> None:
        """For some length of step along the negative gradient the batch's loss falls."""
        model, batch = self.model().double(), _double(self.first(self.splits.train))
        loss = self.losses(model, batch).mean()
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, parameters)
        start = [p.detach().clone() for p in parameters]
        for exponent in range(24):
            with torch.no_grad():
                for p, origin, gradient in zip(parameters, start, gradients, strict=True):
                    p.copy_(origin - 10.0 ** (-exponent / 2) * gradient)
                if self.losses(model, batch).mean() < loss:
                    return
        raise AssertionError("no step downhill lowers the loss: is it differentiable?")

    def test_augmentation_follows_its_generator(self) -> None:
        """One seed gives one augmentation; it changes inputs of training, never its argument."""
        augment = self.splits.augment
        if augment is None:
            return
        inputs = self.first(self.splits.train).inputs
        kept = inputs.clone()
        once, twice = (augment(inputs, torch.Generator().manual_seed(7)) for _ in range(2))
        assert torch.equal(once, twice), "one seed gives two augmentations"
        assert torch.equal(inputs, kept), "augmentation changed its argument"
        assert once.dtype == inputs.dtype
        assert len(once) == len(inputs)


def _named(splits: Splits) -> dict[str, Samples]:
    return {
        "train": splits.train,
        "train_eval": splits.train_eval,
        "valid": splits.valid,
        "test": splits.test,
    }


def _contents(samples: Samples) -> Counter[Any]:
    """How often each content (inputs and target, as bytes, hashed) occurs."""
    found: Counter[Any] = Counter()
    for indices in torch.arange(len(samples)).split(1000):
        inputs, targets = samples.select(indices)
        for x, y in zip(inputs.cpu().numpy(), targets.cpu().numpy(), strict=True):
            found[hash((x.tobytes(), y.tobytes()))] += 1
    return found


def _double(batch: Batch) -> Batch:
    return Batch(*(t.double() if t.is_floating_point() else t for t in batch))
