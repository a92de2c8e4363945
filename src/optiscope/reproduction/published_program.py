"""The published preconditioner with its defects, each of which can be mended by itself.

For the reproduction study alone: it answers which published result came from which defect. Written
anew from the thesis, from the list of defects found in its program, and from what a rerun of that
program logged; not from its code. What that leaves open: the exact form of the indefinite Gram
matrix (here cosines beside squared lengths), and of the small factorization.

Index legend: N entries of one tensor, M observations, K kept directions.

Source: L. Bald 2019, Investigating Probabilistic Preconditioning on Artificial Neural Networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optiscope.objective.evaluation import second_order_backward
from optiscope.optim.checks import refuse_sharded
from optiscope.optim.foreign_keys import refuse_foreign_keys
from optiscope.optim.spec import OptimizerSpec

__all__ = [
    "DEFECTS",
    "PublishedPreconditioner",
    "adaptive_sgd",
    "only_adaptive_sgd",
    "preconditioned_sgd",
    "preconditioned_tuned_momentum",
    "preconditioned_tuned_sgd",
]

DEFECTS = {
    "gram": "Gram matrix of unit directions with squared lengths of raw ones on its diagonal",
    "residual": "residuals y - alpha s, where y - s / alpha belongs",
    "inverse": "X'S for S'X in the inverse of the posterior mean",
    "noise": "noise |n |mean g|^2 - mean |g|^2|, which is no variance",
    "layers": "one product with all layers' directions, split over layers",
    "power": "preconditioner applied once, scaled to curvature 1: depends on the loss's scale",
    "restart": "a new inner optimizer each epoch: momentum is lost",
    "pause": "no update of the weights while the Hessian is estimated",
    "graph": "second derivatives prepared in every step",
}


class PublishedPreconditioner(Optimizer):
    """The optimizer of the thesis as its program computed it.

    Args:
        params: parameters or groups; all are treated alike.
        est_rank: directions kept of each tensor.
        num_observations: products after the prior.
        prior_iterations: batches of the prior.
        lr: rate of the first epoch, or of all where ``construct_rate`` is False.
        construct_rate: whether the rate is constructed anew each epoch.
        precondition: whether the low rank is applied.
        momentum: of the inner SGD.
        estimate_every: steps in an epoch, each of which begins with an estimation.
        mend: names of ``DEFECTS`` to leave out.
    """

    def __init__(
        self,
        params: Iterable[Any],
        est_rank: int = 2,
        num_observations: int = 5,
        prior_iterations: int = 10,
        lr: float | None = None,
        construct_rate: bool = True,
        precondition: bool = True,
        momentum: float = 0.0,
        estimate_every: int = 100,
        mend: Sequence[str] = (),
    ) -> None:
        unknown = [name for name in mend if name not in DEFECTS]
        if unknown:
            raise ValueError(f"mend must name defects of {', '.join(DEFECTS)}, got {unknown[0]!r}")
        if lr is None and not construct_rate:
            raise ValueError("expected lr where construct_rate is False, got None: pass lr")
        super().__init__(params, {})
        self.parameters = [p for group in self.param_groups for p in group["params"]]
        self.est_rank, self.num_observations = est_rank, num_observations
        self.prior_iterations, self.estimate_every = prior_iterations, estimate_every
        self.lr, self.construct_rate, self.precondition = lr, construct_rate, precondition
        self.momentum, self.mended = momentum, frozenset(mend)
        self.steps = self.hessian_products = 0
        self.rate: float | None = lr
        self.alpha = self.noise = self.scale = 0.0
        self.low_rank: list[tuple[Tensor, Tensor]] = []
        self._start_inner()
        self._start_estimate()

    def _start_inner(self) -> None:
        self._inner = torch.optim.SGD(self.parameters, lr=0.0, momentum=self.momentum)

    def _start_estimate(self) -> None:
        self._phase, self._count = "prior", 0
        self._sy = self._yy = self._ss = 0.0
        self._mean_gradient: list[Tensor] | None = None
        self._directions: list[list[Tensor]] = []
        self._products: list[list[Tensor]] = []

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; refuses shards and settings of torch's optimizers, which it has not."""
        refuse_foreign_keys("PublishedPreconditioner", param_group, ())
        super().add_param_group(param_group)
        refuse_sharded("PublishedPreconditioner", self.param_groups[-1]["params"])

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One batch; ``closure`` clears gradients, calls ``backward`` and returns the loss."""
        if closure is None:
            raise RuntimeError("expected a closure, got none: call step(closure)")
        if self.steps % self.estimate_every == 0:
            self._start_estimate()
        self.steps += 1
        estimating = self._phase != "ready"
        if estimating or "graph" not in self.mended:
            with second_order_backward():
                loss = closure()
        else:
            loss = closure()
        with torch.no_grad():
            if estimating:
                self._estimate([p.grad for p in self.parameters if p.grad is not None])
            for p in self.parameters:
                if p.grad is not None:
                    p.grad = p.grad.detach()
            moving = self._phase == "ready" or ("pause" in self.mended and self.rate is not None)
            if moving:
                self._update()
        return loss

    def _update(self) -> None:
        if self.precondition and self.low_rank:
            gradients = self._tensors([p.grad for p in self.parameters if p.grad is not None])
            for g, (basis, factors) in zip(gradients, self.low_rank, strict=True):
                g += basis @ (factors * (basis.mT @ g))
            self._put_back(gradients)
        assert self.rate is not None
        self._inner.param_groups[0]["lr"] = self.rate
        self._inner.step()

    def _tensors(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What is estimated by itself, each a vector [N]: the layers' tensors, or all as one."""
        flat = [t.detach().reshape(-1) for t in tensors]
        return [torch.cat(flat)] if "layers" in self.mended else flat

    def _split(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """The inverse of ``_tensors``: one tensor a parameter."""
        sizes = [p.numel() for p in self.parameters]
        pieces = vectors[0].split(sizes) if "layers" in self.mended else vectors
        return [v.view(p.shape) for v, p in zip(pieces, self.parameters, strict=True)]

    def _put_back(self, gradients: Sequence[Tensor]) -> None:
        for p, g in zip(self.parameters, self._split(gradients), strict=True):
            if p.grad is not None and p.grad.data_ptr() != g.data_ptr():
                p.grad.copy_(g)

    def _estimate(self, graph: Sequence[Tensor]) -> None:
        self._count += 1
        g = self._tensors(graph)
        if self._phase == "prior":
            self._gather(g, graph)
            if self._count == self.prior_iterations:
                self._construct_rate()
                self._phase, self._count = "observe", 0
                if self.num_observations == 0:
                    self._finish()
            return
        if self._count == 1:
            assert self._mean_gradient is not None
            directions = [-self.alpha * m for m in self._mean_gradient]
        else:
            directions = [-self._inverse_times(v, i) for i, v in enumerate(g)]
        self._directions.append(directions)
        self._products.append(self._product(graph, directions))
        if self._count == self.num_observations:
            self.low_rank = [self._kept(i) for i in range(len(g))]
            self._finish()

    def _finish(self) -> None:
        self._phase = "ready"
        if "restart" not in self.mended:
            self._start_inner()

    def _product(self, graph: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        self.hessian_products += 1
        with torch.enable_grad():
            products = torch.autograd.grad(
                list(graph),
                self.parameters,
                self._split(vectors),
                retain_graph=True,
                materialize_grads=True,
            )
        return self._tensors(products)

    def _gather(self, g: list[Tensor], graph: Sequence[Tensor]) -> None:
        y = self._product(graph, g)
        self._sy += sum(float(a @ b) for a, b in zip(g, y, strict=True))
        self._yy += sum(float(b @ b) for b in y)
        self._ss += sum(float(a @ a) for a in g)
        if self._mean_gradient is None:
            self._mean_gradient = [torch.zeros_like(v) for v in g]
        for mean, v in zip(self._mean_gradient, g, strict=True):
            mean += v / self.prior_iterations

    def _construct_rate(self) -> None:
        assert self._mean_gradient is not None
        self.alpha = self._sy / self._yy if self._yy else math.nan
        self.scale = self._sy / self._ss if self._ss else math.nan
        mean_square = self._ss / self.prior_iterations
        square_mean = sum(float(m @ m) for m in self._mean_gradient)
        if "noise" in self.mended:
            size = sum(p.numel() for p in self.parameters)
            self.noise = max(mean_square - square_mean, 0.0) / size
        else:
            self.noise = abs(self.prior_iterations * square_mean - mean_square)
        first = self.steps <= self.estimate_every
        if self.construct_rate and not (first and self.lr is not None):
            self.rate = self.alpha

    def _factor(self, i: int) -> tuple[Tensor, Tensor]:
        """X, S [N, M] of the posterior mean B0 + w0^2 X S' of one tensor, S of unit length."""
        s = torch.stack([d[i] for d in self._directions], 1)
        y = torch.stack([p[i] for p in self._products], 1)
        lengths = torch.linalg.vector_norm(s, dim=0)
        s, y = s / lengths, y / lengths
        alpha = 1 / self.alpha if "residual" in self.mended else self.alpha
        gram, noise = s.mT @ s, torch.ones_like(lengths)
        if "gram" not in self.mended:
            noise = lengths.square()
            gram = gram - gram.diag().diag() + noise.diag()
        cover = (self.scale**2 * gram + self.noise * noise.diag()).double()
        return _solve(cover, (y - alpha * s).mT).mT.to(s), s

    def _inverse_times(self, g: Tensor, i: int) -> Tensor:
        x, s = self._factor(i)
        a, w = self.alpha, self.scale**2
        inner = s.mT @ x if "inverse" in self.mended else x.mT @ s
        small = torch.eye(inner.shape[0], dtype=torch.float64) + (a * w * inner).double()
        weights = _solve(small, (s.mT @ g)[:, None])[:, 0]
        return a * g - a**2 * w * (x @ weights.to(g))

    def _kept(self, i: int) -> tuple[Tensor, Tensor]:
        """U [N, K] and the factors c [K] of the preconditioner I + U diag(c) U' of one tensor."""
        x, s = self._factor(i)
        left, upper = torch.linalg.qr(x)
        lower = torch.linalg.qr(s, mode="r").R
        core = (self.scale**2 * upper @ lower.mT).double()
        if not bool(core.isfinite().all()):
            return torch.full_like(left[:, :1], torch.nan), core.new_ones(1).to(left)
        u, sigma, _ = torch.linalg.svd(core)
        rank = min(self.est_rank, int((sigma > 0).sum()))
        basis, sigma = left @ u[:, :rank].to(left), sigma[:rank]
        if "power" in self.mended:
            factors = sigma.min() / sigma - 1 if rank else sigma
        else:
            factors = sigma.rsqrt() - 1
        return basis, factors.to(basis)

    def get_log(self) -> dict[str, Any]:
        """The rate and what the estimation made of the noise."""
        return {"step_size": [self.rate], "scale": self.scale, "noise": self.noise}


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solution of a small system in float64; NaN where the system is not finite."""
    if not bool(matrix.isfinite().all() and right.isfinite().all()):
        return torch.full_like(right, torch.nan, dtype=torch.float64)
    solution: Tensor = torch.linalg.lstsq(matrix.cpu(), right.double().cpu()).solution
    return solution.to(right.device)


def _variant(name: str, **settings: Any) -> OptimizerSpec:
    return OptimizerSpec(
        f"published_{name}",
        PublishedPreconditioner,
        defaults=settings,
        closure=True,
        steps_per_epoch="estimate_every",
        source="Bald 2019, with its defects",
    )


preconditioned_sgd = _variant("preconditioned_sgd")
adaptive_sgd = _variant("adaptive_sgd", precondition=False)
only_adaptive_sgd = _variant(
    "only_adaptive_sgd", precondition=False, num_observations=0, mend=("graph",)
)
preconditioned_tuned_sgd = _variant("preconditioned_tuned_sgd", construct_rate=False)
preconditioned_tuned_momentum = _variant(
    "preconditioned_tuned_momentum", construct_rate=False, momentum=0.9
)
