"""The risk of a problem on a split, over all kinds of problem that need no files."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from optiscope import problems
from optiscope.problems.risk import SplitError, risk_of
from optiscope.train.evaluation import evaluate

DIGITS = [entry.name for entry in problems.entries() if entry.name.startswith("digits")]


def state(model: torch.nn.Module) -> list[Any]:
    return [
        {name: t.clone() for name, t in model.state_dict().items()},
        [m.training for m in model.modules()],
        [p.grad for p in model.parameters()],
        torch.get_rng_state(),
    ]


@pytest.mark.parametrize("name", DIGITS)
def test_loss_gradient_and_products_on_all_kinds_of_digits_problems(name: str) -> None:
    problem = problems.get(name)
    model = problem.make_model().train()
    before = state(model)
    risk = risk_of(problem, "valid", model, samples=40, batch_size=16)
    reported = evaluate(problem, model, problem.data(None).valid.subset(torch.arange(40)),
                        torch.device("cpu"))  # fmt: skip
    figures = risk.evaluate()
    assert risk.samples == 40
    assert figures.keys() == reported.keys()
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(risk.size, generator=generator)
    w = torch.randn(risk.size, generator=generator)
    if "vae" not in name and "autoencoder" not in name:
        assert figures == pytest.approx(reported, rel=1e-4)
    value, gradient = risk.value_and_gradient()
    assert float(value) == pytest.approx(figures["loss"], rel=1e-4)
    hv, hw = risk.hessian_product(v), risk.hessian_product(w)
    gv, rv = risk.gauss_newton_product(v), risk.residual() @ v
    scale = float(hv.norm() * w.norm())
    assert abs(float(hv @ w - hw @ v)) <= 1e-4 * scale
    assert float((gv + rv - hv).norm()) <= 1e-3 * float(hv.norm() + gv.norm())
    assert float(gv @ v) >= -1e-4 * float(gv.norm() * v.norm())
    assert torch.isfinite(gradient).all()
    after = state(model)
    assert all(torch.equal(t, after[0][key]) for key, t in before[0].items())
    assert before[1:3] == after[1:3]


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(SplitError, match="did you mean 'valid'"):
        risk_of(problems.get(DIGITS[0]), "vaild")
