"""What is no state dict, no risk, or has no finite loss is refused in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import optiscope
from optiscope import curvature, landscape
from optiscope.errors import OptiscopeError


class Function(nn.Module):
    """A function of the parameters, whatever the input."""

    def __init__(self, f: Callable[[Tensor], Tensor], start: list[float]) -> None:
        super().__init__()
        self.f, self.p = f, nn.Parameter(torch.tensor(start))

    def forward(self, _: Tensor) -> Tensor:
        return self.f(self.p)


def risk_of(f: Callable[[Tensor], Tensor], start: list[float]) -> optiscope.EmpiricalRisk:
    batches = [(torch.zeros(1), torch.zeros(1))]
    return optiscope.EmpiricalRisk(Function(f, start), lambda out, _: out, batches)


BOWL = risk_of(lambda p: p.square().sum(), [1.0, 2.0])
A, B = {"p": torch.tensor([-1.0, 0.0])}, {"p": torch.tensor([1.0, 0.0])}
OTHER = {"p": torch.zeros(3)}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: landscape.connect(BOWL.model, A, B), "expected a risk"),
        (lambda: landscape.connect(BOWL, A["p"], B["p"]), "risk.state_dict"),
        (lambda: landscape.line(BOWL, A, [1.0]), "got list"),
        (lambda: landscape.plane(BOWL, 3.0), "got float"),
        (lambda: landscape.same_basin(BOWL, [A, None], tolerance=1.0), "solution 1"),
        (lambda: landscape.match_units(BOWL.model, A, 1), "got int"),
        (lambda: landscape.through_solutions(BOWL, A, B, None), "expected c"),
        (lambda: landscape.trajectory_directions(BOWL, [A, B, 1]), "expected point 2"),
        (lambda: landscape.connect(BOWL, A, OTHER), "shape"),
        (lambda: landscape.line(BOWL, A, OTHER), "shape"),
        (lambda: landscape.same_basin(BOWL, [A, OTHER], tolerance=1.0), "shape"),
        (lambda: landscape.match_units(BOWL.model, A, OTHER), "does not fit"),
        (lambda: landscape.match_units(BOWL.model, A, {"p": A["p"] / 0}), "finite weights"),
        (lambda: landscape.leading_eigenvectors(risk_of(lambda p: p[0] ** 2, [1.0]),
                                                {"p": torch.zeros(1)}), "at least two"),
        (lambda: curvature.decompose(BOWL.hessian()), "expected a risk"),
        (lambda: curvature.count_outliers(torch.ones(3)), "expected eigenpairs"),
        (lambda: optiscope.EmpiricalRisk(BOWL.model, BOWL.loss, []), "at least one batch"),
        (lambda: optiscope.EmpiricalRisk(BOWL.model, BOWL.loss, 7), "expected batches"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_in_words(call: Callable[[], object], words: str) -> None:
    with pytest.raises(OptiscopeError, match=words):
        call()


def test_a_module_stands_for_its_state_dict() -> None:
    a, b = Function(BOWL.model.f, [-1.0, 0.0]), Function(BOWL.model.f, [1.0, 0.0])
    assert landscape.line(BOWL, a, b).losses.tolist() == landscape.line(BOWL, A, B).losses.tolist()


@pytest.mark.parametrize("f", [lambda p: (1 / (p - p)).sum(), lambda p: p.sum() * torch.inf])
def test_a_loss_that_is_not_finite_has_no_curvature(f: Callable[[Tensor], Tensor]) -> None:
    risk = risk_of(f, [1.0, 2.0])
    for call in (
        lambda: curvature.top_eigenpairs(risk.hessian(), k=1),
        lambda: curvature.trace(risk.hessian()),
        lambda: curvature.spectral_density(risk.hessian()),
        lambda: curvature.decompose(risk),
        lambda: landscape.connect(risk, A, B),
        lambda: landscape.line(risk, A, B),
    ):
        with pytest.raises(OptiscopeError, match="finite"):
            call()


def test_a_kernel_without_second_derivatives_is_named() -> None:
    model = nn.Linear(4, 3)
    batches = [(torch.randn(8, 4), torch.randint(3, (8,)))]
    risk = optiscope.EmpiricalRisk(model, nn.MultiMarginLoss(), batches)
    for operator in (risk.hessian(), risk.gauss_newton()):
        with pytest.raises(OptiscopeError, match="plain kernels"):
            _ = operator @ torch.ones(risk.size)
