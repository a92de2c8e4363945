"""The hash of a trial: equal where results are equal, different where they may differ."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_examples import trial

from optiscope.records import Trial
from optiscope.records.trial import canonical_json

# A value of each field that may change a trial's result; a new field must be added here.
OTHER = {
    "problem": "digits_conv",
    "problem_version": 2,
    "optimizer": "nesterov",
    "hyperparameters": {"lr": 0.1, "momentum": 0.8},
    "seed": 4,
    "epochs": 3,
    "batch_size": 64,
    "schedule": {"name": "linear_decay", "final": 0.1},
    "clip": {"value": 1.0},
    "early_stopping": {"metric": "valid_loss", "patience": 3},
    "initialisation": {"name": "orthogonal"},
    "pruning": {"pruner": {"name": "median"}, "metric": "valid_loss", "past": []},
    "max_seconds": 61.0,
    "device": "cuda",
    "threads": 1,
    "optimizer_version": 2,
    "optimizer_code": "5d41402abc4b2a76",
    "problem_code": "7d793037a0760186",
    "autocast": "bfloat16",
    "compile": True,
    "accumulate": 2,
    "together": True,
    "schema": 2,
}


def test_the_hash_never_changes() -> None:
    # Pinned: a different value here makes every record in every folder out there unfindable.
    assert trial().hash == "6b130a60d4b0a17c6bab"


def test_the_hash_is_the_same_in_another_process() -> None:
    code = "from record_examples import trial; print(trial().hash)"
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "12345",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == trial().hash


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Trial)])
def test_every_field_changes_the_hash(field: str) -> None:
    changed = dataclasses.replace(trial(), **{field: OTHER[field]})
    assert changed.hash != trial().hash


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"lr": 1, "momentum": 0.9}, {"lr": 1.0, "momentum": 0.9}),
        ({"lr": 0.1, "momentum": 0.9}, {"momentum": 0.9, "lr": 0.1}),
        ({"betas": (0.9, 0.999)}, {"betas": [0.9, 0.999]}),
        ({"lr": 0.0}, {"lr": -0.0}),
    ],
    ids=["1 and 1.0", "order of keys", "tuple and list", "signed zero"],
)
def test_equal_settings_have_one_hash(one: dict[str, object], other: dict[str, object]) -> None:
    assert trial(hyperparameters=one).hash == trial(hyperparameters=other).hash


def test_true_is_not_one() -> None:
    assert trial(hyperparameters={"a": True}).hash != trial(hyperparameters={"a": 1}).hash


def test_order_of_fields_does_not_matter() -> None:
    values = trial().to_dict()
    backwards = Trial.from_dict(dict(reversed(list(values.items()))))
    assert backwards.hash == trial().hash


def test_a_round_trip_through_json_keeps_trial_and_hash() -> None:
    back = Trial.from_dict(json.loads(json.dumps(trial().to_dict())))
    assert back == trial()
    assert back.hash == trial().hash


def test_unknown_and_missing_fields_are_refused() -> None:
    values = trial().to_dict()
    with pytest.raises(TypeError, match="colour"):
        Trial.from_dict({**values, "colour": "red"})
    del values["seed"]
    with pytest.raises(TypeError, match="seed"):
        Trial.from_dict(values)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_canonical_json_survives_its_own_reading(values: dict[str, object]) -> None:
    text = canonical_json(values)
    assert canonical_json(json.loads(text)) == text


@settings(max_examples=50, deadline=None)
@given(st.floats(min_value=1e-300, max_value=1e300), st.floats(min_value=1e-300, max_value=1e300))
def test_two_rates_share_a_hash_only_where_they_are_equal(a: float, b: float) -> None:
    same = trial(hyperparameters={"lr": a}).hash == trial(hyperparameters={"lr": b}).hash
    assert same == (a == b)
