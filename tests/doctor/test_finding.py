"""A finding is a frozen value that survives JSON and pickling."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
from pathlib import Path

import pytest

from optiscope.doctor.finding import Finding
from optiscope.doctor.rules import RULES


def example() -> Finding:
    return Finding(
        rule="gradient_not_cleared",
        family="gradient_flow",
        severity="error",
        step=1,
        last_step=9,
        count=9,
        where=("0.weight",),
        sentence="Gradients are added to those of the step before.",
        measured={"share": 1},
        threshold={"share": 0.5},
        remedy="Call optimizer.zero_grad() before backward().",
        explains=("rate_too_large",),
    )


def test_a_finding_survives_json_pickle_and_copy() -> None:
    finding = example()
    assert Finding.from_dict(json.loads(json.dumps(finding.to_dict()))) == finding
    assert pickle.loads(pickle.dumps(finding)) == finding
    assert copy.deepcopy(finding) == finding
    assert hash(copy.deepcopy(finding)) == hash(finding)


def test_a_finding_cannot_be_changed() -> None:
    finding = example()
    with pytest.raises(dataclasses.FrozenInstanceError):
        finding.step = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        finding.measured["share"] = 2.0  # type: ignore[index]


def test_before_training_step_and_place_may_be_left_out() -> None:
    finding = Finding("overlap", "overlap", "warning", "12 test images are training images.")
    assert (finding.step, finding.last_step, finding.count, finding.where) == (0, 0, 1, ())
    assert finding.is_alarm
    assert not finding.as_note("expected").is_alarm


@pytest.mark.parametrize(
    ("field", "value"), [("severity", "fatal"), ("family", "weather"), ("confidence", 1.5)]
)
def test_wrong_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Finding.from_dict({**example().to_dict(), field: value})


def test_the_guide_lists_every_finding_and_their_number() -> None:
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    names = {name for rule in RULES for name in rule.names()}
    listed = set(re.findall(r"[a-z0-9_]+", text))
    assert names <= listed, sorted(names - listed)
    assert f"There are {len(RULES)} rules, which can report {len(names)} findings" in text
