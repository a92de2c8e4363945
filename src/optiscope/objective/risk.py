"""The mean loss over given samples as a function of the parameters, with all its derivatives.

Index legend: N parameters, n samples, B samples in a batch; vectors [N] are flat and in the order
of ``model.named_parameters()``.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from optiscope.errors import OptiscopeError
from optiscope.hints import did_you_mean
from optiscope.objective.batches import (
    Batches,
    ModelBatch,
    all_random_state,
    mixed,
    seed_everything,
)
from optiscope.objective.own_loss import loss_among
from optiscope.objective.products import FlatParameters
from optiscope.objective.risk_operator import Kind, Leaves, RiskOperator
from optiscope.objective.sample_gradients import batched_gradients, same_gradients
from optiscope.objective.sample_sums import SampleSums
from optiscope.objective.selection import Selection, select_parameters
from optiscope.objective.substitution import (
    differentiable_kernels,
    in_mode,
    normalizes_over_batch,
    substituted,
    unwrapped,
)

__all__ = ["EmpiricalRisk", "Point", "RandomLossError", "RiskError"]

Loss = Callable[[Any, Any], Tensor]
Parameters = Tensor | Mapping[str, Tensor]
"""A flat vector [N], or tensors by name (a state dict, whose buffers are used as well)."""


class RiskError(OptiscopeError, ValueError):
    """A model, loss or batch that has no well-defined risk; the message says what to change."""


class RandomLossError(RiskError):
    """The loss of the same samples at the same parameters differs between two evaluations."""


@dataclass(frozen=True)
class Point:
    """All tensors of a model at one place: parameters and buffers, by name."""

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def same_as(self, other: Point) -> bool:
        """Whether all values are equal."""
        pairs = [(self.parameters, other.parameters), (self.buffers, other.buffers)]
        return all(
            a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in a) for a, b in pairs
        )

    def copied(self) -> Point:
        """The same values in tensors of its own."""
        return Point(
            {name: p.clone() for name, p in self.parameters.items()},
            {name: b.clone() for name, b in self.buffers.items()},
        )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a, b))


@dataclass(frozen=True)
class _BatchLoss:
    """One batch of a risk, run with given leaves."""

    risk: EmpiricalRisk
    leaves: Leaves
    batch: ModelBatch
    index: int
    weight: float

    def outputs(self, batch: ModelBatch | None = None) -> Any:
        """What the model returns for the batch."""
        batch = self.batch if batch is None else batch
        buffers = {name: b.clone() for name, b in self.leaves.buffers.items()}
        with self.risk.guards(), substituted(self.risk.model, self.leaves.parameters, buffers):
            seed_everything(mixed(self.risk.seed, self.index), device=self.risk.device)
            return self.risk.model(*batch.args, **batch.kwargs)

    def losses_of(self, outputs: Any, batch: ModelBatch | None = None) -> Tensor:
        """Losses of the batch's samples [B, ...], or their mean []."""
        with self.risk.guards():
            return self.risk.losses(outputs, self.batch if batch is None else batch)

    def loss_of(self, outputs: Any) -> Tensor:
        """Mean loss of the batch, a scalar."""
        return _mean(self.losses_of(outputs))

    def losses(self, batch: ModelBatch | None = None) -> Tensor:
        """:meth:`losses_of` the batch from the beginning."""
        return self.losses_of(self.outputs(batch), batch)

    def loss(self, batch: ModelBatch | None = None) -> Tensor:
        """Mean loss of the batch from the beginning, a scalar."""
        return _mean(self.losses(batch))


class EmpiricalRisk:
    """Mean loss over all samples of some batches, as a function of a model's parameters.

    R(theta) = sum_b B_b R_b(theta) / sum_b B_b, so that every division of the samples into batches
    gives the same risk. Value, gradient and matrix products leave the model, its buffers, modes,
    gradients and all random generators as they were, also when they raise.

    Frozen parameters and parameters that the loss never sees count: their rows and columns are
    zero. Tied parameters count once, under their first name.

    Args:
        model: any module. It is not copied: later calls see its later weights.
        loss: ``loss(outputs, targets)``, the mean over the batch, or one value per sample [B];
            None where the model returns its own loss (``output.loss``, ``output["loss"]`` or a
            scalar).
        batches: list of ``(inputs, targets)``, ``DataLoader``, one pair of tensors, dictionaries.
            One-shot iterators are read once and held in memory.
        parameters: part of the model: a layer, parameters, names, prefixes or patterns of names, or
            an optimizer's group. None: all.
        reduction: ``mean`` or ``sum`` over the batch; ``auto``: what ``loss.reduction`` says, else
            mean, after a look whether the loss doubles with the batch.
        dropout: ``off`` (evaluation mode), ``fixed`` (training mode, one mask per batch, drawn with
            ``seed``) or ``refuse`` a model with dropout in training mode.
        batch_norm: ``running`` statistics, or those of each ``batch``, which then must not be
            divided differently.
        noise: ``refuse`` a forward pass that draws random numbers, or use ``fixed`` ones.
        check_deterministic: evaluate the loss twice at construction and compare.
        count: weight of a batch given its targets; None: its samples, or what the mean of
            ``CrossEntropyLoss`` divides by (class weights, ``ignore_index``).
        metrics: figures of merit for `evaluate`, ``compute(outputs, targets)`` -> [B] each.
        target_key: key of the targets in dictionary batches.
        batch_size: samples per batch into which one pair of tensors is divided.
        graph_memory: bytes for graphs that matrix products keep; None: a quarter of the machine's
            memory, at most 4 GiB.
        seed: of fixed masks and noise.

    Raises:
        RandomLossError: two evaluations differ.
        RiskError: the loss is no mean, or is not understood.
        TypeError, ValueError: the batches are not understood.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss | None,
        batches: Any,
        *,
        parameters: Selection = None,
        reduction: Literal["auto", "mean", "sum"] = "auto",
        dropout: Literal["off", "fixed", "refuse"] = "off",
        batch_norm: Literal["running", "batch"] = "running",
        noise: Literal["refuse", "fixed"] = "refuse",
        check_deterministic: bool = True,
        count: Callable[[Any], float] | None = None,
        metrics: Mapping[str, Callable[[Any, Any], Tensor]] | None = None,
        target_key: str | None = None,
        batch_size: int | None = None,
        graph_memory: int | None = None,
        seed: int = 0,
    ) -> None:
        _one_of("reduction", reduction, ("auto", "mean", "sum"))
        _one_of("dropout", dropout, ("off", "fixed", "refuse"))
        _one_of("batch_norm", batch_norm, ("running", "batch"))
        _one_of("noise", noise, ("refuse", "fixed"))
        self.model = unwrapped(model)
        self.loss = loss
        self.dropout, self.batch_norm, self.noise = dropout, batch_norm, noise
        self.metrics = metrics
        self.graph_memory = graph_memory
        self.seed = seed
        if dropout == "refuse":
            self._refuse_dropout()
        self._names = select_parameters(self.model, parameters)
        self._flat()  # refuses what cannot be one vector
        self._batches = Batches(
            batches,
            self.model,
            own_loss=loss is None,
            target_key=target_key,
            batch_size=batch_size,
        )
        self._count = count if count is not None else _counting(loss)
        self._operators: dict[str, RiskOperator] = {}
        self.sample_gradients_batched: bool | None = None  # how they were computed last
        self._reduction: str = _declared(loss) if reduction == "auto" else reduction
        self._samples: int | None = None
        self._batch_count, self._weight = 0, 0.0
        if self._reduction == "auto":
            self._reduction = "mean"
            self._refuse_a_sum()
        if check_deterministic:
            self._check_deterministic()

    # Parameters

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters that theta is made of, in order."""
        return self._names

    @property
    def size(self) -> int:
        """Number of parameters N."""
        return self._flat().size

    @property
    def dtype(self) -> torch.dtype:
        """Type of all vectors: the widest of the parameters' types, at least float32."""
        return self._flat().dtype

    @property
    def device(self) -> torch.device:
        """Device of all vectors."""
        return self._flat().device

    @property
    def parameters(self) -> Tensor:
        """The model's present parameters theta [N], as a copy."""
        return self._flat().join(self._flat().parameters)

    @property
    def samples(self) -> int:
        """Number of samples n."""
        self._read_sizes()
        return self._samples or 0

    @property
    def batch_count(self) -> int:
        """Number of batches with samples that count."""
        self._read_sizes()
        return self._batch_count

    @property
    def weight(self) -> float:
        """Sum of the batches' weights: the samples, unless they count differently."""
        self._read_sizes()
        return self._weight

    def flatten(self, state_dict: Mapping[str, Tensor]) -> Tensor:
        """theta [N] of tensors by name, such as ``model.state_dict()``; other names are ignored.

        Raises:
            RiskError: a parameter is missing or has another shape.
        """
        return self._flat().join(self._chosen(state_dict))

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Copies of the parameters by name, in the model's shapes and types."""
        flat = self._flat()
        pieces = zip(self._names, flat.split(self._vector(theta)), flat.parameters, strict=True)
        return {name: piece.to(p.dtype, copy=True) for name, piece, p in pieces}

    def state_dict(self, theta: Parameters | None = None) -> dict[str, Tensor]:
        """A state dict for the model at ``theta``: parameters, tied names and buffers."""
        point = self.point(theta)
        values = {id(p): point.parameters[name] for name, p in self.model.named_parameters()} | {
            id(b): point.buffers[name] for name, b in self.model.named_buffers()
        }
        return {
            name: values.get(id(tensor), tensor).detach().clone()
            if isinstance(tensor, Tensor)
            else tensor
            for name, tensor in self.model.state_dict(keep_vars=True).items()
        }

    def restrict(self, parameters: Selection) -> EmpiricalRisk:
        """The same risk as a function of a part of the parameters, the others held constant."""
        part = copy.copy(self)
        part._names = select_parameters(self.model, parameters)
        part._operators = {}
        return part

    # Values and derivatives

    def value(self, theta: Parameters | None = None) -> Tensor:
        """R(theta), a scalar."""
        leaves = self.leaves(self.point(theta))
        return self._scalar(self._mean_loss(leaves))

    def value_and_gradient(self, theta: Parameters | None = None) -> tuple[Tensor, Tensor]:
        """R(theta), a scalar, and its gradient [N]."""
        leaves = self.leaves(self.point(theta))
        gradient = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        sums, weights = SampleSums(), 0.0
        for each in self.passes(leaves):
            losses, part = self._batch_gradient(each, leaves)
            gradient.add_(part, alpha=each.weight)
            sums.add("loss", losses, each.batch.samples, each.weight)
            weights += each.weight
        return self._scalar(sums.mean("loss")), gradient.div_(weights)

    def gradient(self, theta: Parameters | None = None) -> Tensor:
        """Gradient of R at theta [N]."""
        return self.value_and_gradient(theta)[1]

    def per_sample_gradients(self, theta: Parameters | None = None) -> Tensor:
        """Gradients of each sample's loss, [n, N].

        All of a batch at once (``vmap``) where that works and agrees with samples computed by
        themselves, else one by one, which takes longer: ``sample_gradients_batched`` then says so.

        Raises:
            RiskError: batch norm with the statistics of a batch, where samples have no gradient
                of their own.
        """
        if self.batch_norm == "batch" and any(map(normalizes_over_batch, self.model.modules())):
            raise RiskError(
                "per-sample gradients are not defined where batch norm mixes the samples of a "
                "batch: pass batch_norm='running'"
            )
        if self.dropout == "fixed" or self.noise == "fixed":
            raise RiskError(
                "per-sample gradients cannot repeat the random numbers of a whole batch: pass "
                "dropout='off' and noise='refuse'"
            )
        leaves = self.leaves(self.point(theta))
        rows: list[Tensor] = []
        self.sample_gradients_batched = True
        for each in self.passes(leaves):

            def alone(i: int, each: _BatchLoss = each) -> Tensor:
                sample = each.batch.select(torch.tensor([i]))
                return self._batch_gradient(each, leaves, sample)[1]

            batched = (
                self._batched_gradients(each, leaves) if self.sample_gradients_batched else None
            )
            ends = () if rows or batched is None else {0, each.batch.samples - 1}
            if batched is None or not all(same_gradients(batched[i], alone(i)) for i in ends):
                self.sample_gradients_batched = False
                batched = torch.stack([alone(i) for i in range(each.batch.samples)])
            rows.append(batched)
        return torch.cat(rows)

    def _batched_gradients(self, each: _BatchLoss, leaves: Leaves) -> Tensor | None:
        def loss(parameters: dict[str, Tensor], sample: ModelBatch) -> Tensor:
            moved = replace(leaves, parameters={**leaves.parameters, **parameters})
            return replace(each, leaves=moved).loss(sample)

        chosen = {name: leaves.parameters[name] for name in self._names}
        with torch.enable_grad(), self.differentiable():
            return batched_gradients(loss, chosen, leaves.flat, each.batch)

    def evaluate(self, theta: Parameters | None = None) -> dict[str, float]:
        """Mean loss, and accuracy where targets are classes, or the given metrics."""
        point = self.leaves(self.point(theta))
        sums = SampleSums()
        with torch.no_grad():
            for each in self.passes(point):
                outputs, targets = each.outputs(), each.batch.targets
                sums.add("loss", each.losses_of(outputs), each.batch.samples, each.weight)
                figures = self.metrics
                if figures is None:
                    figures = {"accuracy": _hits} if _is_classification(outputs, targets) else {}
                for name, compute in figures.items():
                    sums.add(name, compute(outputs, targets), each.batch.samples)
        return sums.means()

    # Matrices

    def hessian(self, theta: Parameters | None = None) -> RiskOperator:
        """The Hessian of R at theta, fixed at this moment, as an operator [N, N]."""
        return RiskOperator(self, "hessian", self.point(theta).copied())

    def gauss_newton(self, theta: Parameters | None = None) -> RiskOperator:
        """The Gauss-Newton matrix J' L'' J: the Hessian of R with the model linearized."""
        return RiskOperator(self, "gauss_newton", self.point(theta).copied())

    def residual(self, theta: Parameters | None = None) -> RiskOperator:
        """Hessian less Gauss-Newton matrix: the model's second derivatives, weighted by L'."""
        return RiskOperator(self, "residual", self.point(theta).copied())

    def hessian_product(self, v: Tensor, theta: Parameters | None = None) -> Tensor:
        """Hessian at theta times ``v`` [N] (or [N, M]); graphs are kept for the next call."""
        return self._operator("hessian", theta) @ v

    def gauss_newton_product(self, v: Tensor, theta: Parameters | None = None) -> Tensor:
        """Gauss-Newton matrix at theta times ``v`` [N] (or [N, M])."""
        return self._operator("gauss_newton", theta) @ v

    def release(self) -> None:
        """Free the graphs that products keep."""
        self._operators.clear()

    # What operators and instruments build on

    def point(self, theta: Parameters | None = None) -> Point:
        """All tensors at ``theta``: its own, and the model's present ones for the rest."""
        parameters = {name: p.detach() for name, p in self.model.named_parameters()}
        buffers = {name: b.detach() for name, b in self.model.named_buffers()}
        if isinstance(theta, Mapping):
            state = _without_prefix(theta, parameters)
            parameters |= dict(zip(self._names, self._chosen(state), strict=True))
            buffers |= {name: state[name].to(b) for name, b in buffers.items() if name in state}
        elif theta is not None:
            pieces = self._flat().split(self._vector(theta))
            for name, piece in zip(self._names, pieces, strict=True):
                parameters[name] = piece.detach().to(parameters[name].dtype)
        return Point(parameters, buffers)

    def leaves(self, point: Point) -> Leaves:
        """New leaf tensors at ``point``; those that are frozen in the model need no gradient."""
        present = dict(self.model.named_parameters())
        with torch.inference_mode(False):
            chosen = {
                name: point.parameters[name].clone().requires_grad_(present[name].requires_grad)
                for name in self._names
            }
        flat = FlatParameters(tuple(chosen.values()))
        return Leaves(flat, point.parameters | chosen, point.buffers)

    def passes(
        self, leaves: Leaves, shift: int = 0, *, fresh: bool = False
    ) -> Iterator[_BatchLoss]:
        """Each batch, to be run with ``leaves``. No guard is up between batches.

        Args:
            leaves: tensors of the model.
            shift: 0, or another order of a shuffled loader and other random numbers.
            fresh: read the batches anew where they are held in memory.
        """
        floats = {p.dtype for p in leaves.parameters.values()}
        dtype = floats.pop() if len(floats) == 1 else None
        samples, count, total, index = 0, 0, 0.0, 0
        for index, raw in enumerate(self._batches.replay(shift, fresh=fresh), start=1):
            with torch.inference_mode(False):
                batch = raw.to(self.device, dtype)
            weight = float(batch.samples if self._count is None else self._count(batch.targets))
            samples += batch.samples
            if weight == 0:
                continue
            count, total = count + 1, total + weight
            yield _BatchLoss(self, leaves, batch, index, weight)
        if not index:
            raise RiskError("expected at least one batch, got none")
        if not count:
            raise RiskError(
                "expected samples that count, got targets that are all ignored or weighted zero: "
                "check ignore_index, class weights and the labels"
            )
        self._samples, self._batch_count, self._weight = samples, count, total

    @contextmanager
    def guards(self) -> Iterator[None]:
        """The stated mode, random generators and kernels; afterwards all is as it was."""
        with (
            all_random_state([self.device], []),
            in_mode(
                self.model,
                training=self.dropout == "fixed",
                batch_statistics=self.batch_norm == "batch",
            ),
            differentiable_kernels(self.model),
        ):
            yield

    @contextmanager
    def differentiable(self) -> Iterator[None]:
        """The kernels that have second derivatives."""
        with differentiable_kernels(self.model):
            yield

    def losses(self, outputs: Any, batch: ModelBatch) -> Tensor:
        """Losses of the samples of ``batch`` [B, ...], or their mean [].

        Raises:
            RiskError: the loss returns neither a scalar nor one value per sample.
        """
        loss = loss_among(outputs) if self.loss is None else self.loss(outputs, batch.targets)
        if self.loss is None and loss is None:
            raise RiskError(
                f"expected the model to return its loss (output.loss), got {type(outputs).__name__}"
                " without one: pass loss(outputs, targets), or labels in the batch"
            )
        if not isinstance(loss, Tensor):
            raise RiskError(
                f"expected the loss to be a tensor, got {type(loss).__name__}: return it without "
                ".item()"
            )
        if loss.numel() == 1:
            loss = loss.reshape(())
            return loss / batch.samples if self._reduction == "sum" else loss
        if loss.ndim and loss.shape[0] == batch.samples:
            return loss
        raise RiskError(
            "expected the loss to be a mean over the batch, or one value for each of its "
            f"{batch.samples} samples, got shape {list(loss.shape)}: reduce it to a scalar"
        )

    # Behind the scenes

    def _read_sizes(self) -> None:
        """Count samples and batches, unless a pass over them has done so."""
        if self._samples is None:
            for _ in self.passes(self.leaves(self.point())):
                pass

    def _scalar(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=self.dtype, device=self.device)

    def _flat(self) -> FlatParameters:
        """The model's own parameters that theta is made of."""
        present = dict(self.model.named_parameters())
        lazy = [name for name in self._names if _uninitialized(present[name])]
        if lazy:
            raise RiskError(
                f"expected all parameters to have a shape, got the lazy {lazy[0]!r}: run the model "
                "once on a batch first"
            )
        return FlatParameters.of(present[name] for name in self._names)

    def _vector(self, theta: Tensor) -> Tensor:
        if theta.shape != (self.size,):
            raise RiskError(
                f"expected theta as a vector [{self.size}] or a dictionary of tensors, got shape "
                f"{list(theta.shape)}: use risk.flatten(state_dict)"
            )
        return theta

    def _chosen(self, state_dict: Mapping[str, Tensor]) -> list[Tensor]:
        """The tensors of a state dict that theta is made of."""
        present = dict(self.model.named_parameters())
        state = _without_prefix(state_dict, present)
        for name in self._names:
            if name not in state:
                hint = did_you_mean(name, state, otherwise="is it a state dict of this model?")
                raise RiskError(f"expected {name!r} among the given tensors, got none: {hint}")
            if state[name].shape != present[name].shape:
                raise RiskError(
                    f"expected {name!r} of shape {list(present[name].shape)}, got "
                    f"{list(state[name].shape)}: is it a state dict of this model?"
                )
        return [state[name].detach().to(self.device) for name in self._names]

    def _operator(self, kind: Kind, theta: Parameters | None) -> RiskOperator:
        """The operator at ``theta``: the last one, if nothing has changed since."""
        point = self.point(theta)
        last = self._operators.get(kind)
        if last is not None and last.point.same_as(point):
            return last
        self._operators[kind] = RiskOperator(self, kind, point.copied())
        return self._operators[kind]

    def _batch_gradient(
        self, each: _BatchLoss, leaves: Leaves, batch: ModelBatch | None = None
    ) -> tuple[Tensor, Tensor]:
        """Losses, each or their mean, and the gradient [N] of the mean loss of one batch."""
        moving = [p for p in leaves.flat.parameters if p.requires_grad]
        with torch.enable_grad(), self.differentiable():
            losses = each.losses(batch)
            loss = _mean(losses)
            pieces: Sequence[Tensor | None] = [None] * len(moving)
            if moving and loss.requires_grad:
                pieces = torch.autograd.grad(loss, moving, allow_unused=True)
        by_leaf = dict(zip(map(id, moving), pieces, strict=True))
        joined = leaves.flat.join([by_leaf.get(id(p)) for p in leaves.flat.parameters])
        return losses.detach(), joined

    def _refuse_dropout(self) -> None:
        for name, module in self.model.named_modules():
            rate = getattr(module, "p", getattr(module, "dropout", 0))
            if module.training and isinstance(rate, float) and rate > 0:
                raise RiskError(
                    f"expected no dropout in training mode, got {rate:g} in {name!r}: call "
                    "model.eval(), or pass dropout='off' or dropout='fixed'"
                )

    def _refuse_a_sum(self) -> None:
        """Raise if the loss of a batch given twice is twice the loss."""
        leaves = self.leaves(self.point())
        with torch.no_grad():
            each = next(iter(self.passes(leaves)))
            outputs, batch = each.outputs(), each.batch
            parts = [t for t in tree_leaves((outputs, batch.targets)) if isinstance(t, Tensor)]
            count = batch.samples
            if self.loss is None or any(not t.ndim or t.shape[0] != count for t in parts):
                return
            with self.guards():
                once = self.loss(outputs, batch.targets)
                if not isinstance(once, Tensor) or once.numel() != 1:
                    return
                try:
                    twice = self.loss(
                        tree_map(_doubled, outputs), tree_map(_doubled, batch.targets)
                    )
                except Exception:  # a loss for one size of batch cannot be asked
                    return
        if not isinstance(twice, Tensor) or twice.numel() != 1:
            return
        a, b = float(once.detach()), float(twice.detach())
        doubles = a != 0 and abs(b - 2 * a) <= 1e-5 * abs(a)
        if doubles and self._outputs_follow_the_batch(each, outputs):
            raise RiskError(
                "expected a loss that is a mean over the batch, got one that doubles with the "
                "batch: pass reduction='sum' (the risk is then the sum over the number of "
                "samples), or reduction='mean' to leave it as it is"
            )

    def _outputs_follow_the_batch(self, each: _BatchLoss, outputs: Any) -> bool:
        """Whether twice the samples give other shapes of outputs.

        A model that ignores its input returns the same; how its loss reduces is nobody's business.
        """
        twice = torch.arange(each.batch.samples).repeat(2)
        try:
            again = each.outputs(each.batch.select(twice))
        except Exception:  # a model for one size of batch cannot be asked
            return True
        shapes = [
            [t.shape for t in tree_leaves(found) if isinstance(t, Tensor)]
            for found in (outputs, again)
        ]
        return shapes[0] != shapes[1]

    def _check_deterministic(self) -> None:
        """Raise unless two evaluations agree, with other random numbers if they are refused."""
        leaves = self.leaves(self.point())
        fixed = self.noise == "fixed" or self.dropout == "fixed"
        totals = [self._loss_with(leaves, 0), self._loss_with(leaves, 0 if fixed else 1)]
        a, b = totals
        tolerance = 1e-10 if self.dtype == torch.float64 else 1e-5
        if math.isfinite(a) and not abs(a - b) <= tolerance * max(abs(a), abs(b), 1e-30):
            raise RandomLossError(
                "expected the same loss of the same samples twice, got a relative change of "
                f"{abs(a - b) / max(abs(a), 1e-30):.2g}: switch random layers and augmentation "
                "off, pass noise='fixed' to hold them fixed, or check_deterministic=False"
            )

    @torch.no_grad()
    def _loss_with(self, leaves: Leaves, shift: int) -> float:
        """The mean loss with another seed of everything random."""
        shifted = copy.copy(self)
        shifted.seed = self.seed + shift
        mean = shifted._mean_loss(leaves, shift, fresh=True)
        self._samples, self._weight = shifted._samples, shifted._weight
        self._batch_count = shifted._batch_count
        return mean

    @torch.no_grad()
    def _mean_loss(self, leaves: Leaves, shift: int = 0, *, fresh: bool = False) -> float:
        sums = SampleSums()
        for each in self.passes(leaves, shift, fresh=fresh):
            sums.add("loss", each.losses(), each.batch.samples, each.weight)
        return sums.mean("loss")


def _one_of(name: str, value: object, words: Sequence[str]) -> None:
    if value not in words:
        hint = did_you_mean(value, words)
        raise RiskError(f"expected {name} to be one of {', '.join(words)}, got {value!r}: {hint}")


def _uninitialized(parameter: Tensor) -> bool:
    return isinstance(
        parameter, (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)
    )


def _mean(losses: Tensor) -> Tensor:
    """The loss that is differentiated: the mean of each sample's, or the mean as it came."""
    return losses.mean() if losses.ndim else losses


def _doubled(part: Any) -> Any:
    return torch.cat([part, part]) if isinstance(part, Tensor) else part


def _without_prefix(
    state_dict: Mapping[str, Tensor], names: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """A state dict saved from a wrapped model, under the names of the model inside."""
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state_dict) and not all(
            name.startswith(prefix) for name in names
        ):
            state_dict = {name.removeprefix(prefix): t for name, t in state_dict.items()}
    return state_dict


def _declared(loss: Loss | None) -> str:
    """The reduction that a loss declares, or ``auto``."""
    if loss is None:
        return "mean"
    declared = getattr(loss, "reduction", None)
    if isinstance(loss, functools.partial):
        declared = loss.keywords.get("reduction")
    if declared == "none":
        return "mean"
    return declared if declared in ("mean", "sum") else "auto"


def _counting(loss: Loss | None) -> Callable[[Any], float] | None:
    """What the mean of a classification loss divides by, where that is not the samples."""
    weight: Tensor | None = None
    ignore = -100
    if isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        if loss.reduction != "mean":
            return None
        weight, ignore = loss.weight, loss.ignore_index
    elif loss is not F.cross_entropy and loss is not F.nll_loss:
        return None

    def count(targets: Any) -> float:
        if not isinstance(targets, Tensor) or targets.is_floating_point():
            return float(len(targets))
        used = targets[targets != ignore]
        return float(used.numel() if weight is None else weight.to(used.device)[used].sum())

    return count


def _is_classification(outputs: Any, targets: Any) -> bool:
    """Whether targets are indices of classes along dimension 1 of the outputs."""
    return (
        isinstance(outputs, Tensor)
        and isinstance(targets, Tensor)
        and targets.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8)
        and outputs.ndim == targets.ndim + 1
        and outputs.ndim > 1
        and outputs.shape[:1] + outputs.shape[2:] == targets.shape
    )


def _hits(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).float()
