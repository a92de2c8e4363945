"""Means over samples: the same however the samples are divided, and by whoever adds them up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from optiscope import EmpiricalRisk, problems
from optiscope.objective.risk import RiskError
from optiscope.objective.sample_sums import SampleSums, sum_over_samples
from optiscope.problems.risk import risk_of
from optiscope.train.evaluation import evaluate


@pytest.mark.parametrize("sizes", [[10], [1] * 10, [7, 3], [4, 4, 2]])
@pytest.mark.parametrize("each", [True, False])
def test_every_sample_counts_once(sizes: list[int], each: bool) -> None:
    values = torch.randn(10, 3)
    sums = SampleSums()
    for part in values.split(sizes):
        sums.add("loss", part if each else part.mean(), len(part))
    assert sums.mean("loss") == pytest.approx(float(values.double().mean()), rel=1e-6)
    assert list(sums.means()) == ["loss"]


def test_a_batch_may_weigh_more_than_its_samples() -> None:
    assert float(sum_over_samples(torch.tensor(2.0), 3, 5.0)) == 10.0
    assert float(sum_over_samples(torch.tensor([1.0, 2.0, 3.0]), 3, 6.0)) == 12.0


def test_sums_are_kept_in_float64() -> None:
    values = torch.full((1 << 20,), 0.1)
    assert float(sum_over_samples(values, len(values))) == pytest.approx(
        len(values) * float(torch.tensor(0.1)), rel=1e-12
    )


def test_training_and_the_risk_report_the_same_bits() -> None:
    problem = problems.get("digits_mlp")
    torch.manual_seed(0)
    model = problem.make_model()
    found = evaluate(problem, model, problem.data(None).valid, torch.device("cpu"))
    risk = risk_of(problem, "valid", model)
    assert risk.evaluate() == found
    assert float(risk.value()) == pytest.approx(found["loss"], rel=1e-6)


def test_targets_that_are_all_ignored_have_no_risk() -> None:
    batch: Any = [(torch.randn(4, 3), torch.full((4,), -100))]
    with pytest.raises(RiskError, match="samples that count"):
        EmpiricalRisk(nn.Linear(3, 2), F.cross_entropy, batch)
