"""The talk's experiments: what is measured is what is said, and verdicts follow from it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optiscope.records import StoreError
from optiscope.reproduction import reproduce
from optiscope.reproduction.talk import TALK, noise
from optiscope.reproduction.talk.experiment import RECORDS, Measured, run_cells

RECORDED = Path(__file__).parents[2] / "benchmarks" / "records" / "reproduction"


def counting(cell: Mapping[str, Any], data_dir: Path | None) -> Mapping[str, Any]:
    if cell["k"] == 3:
        raise ValueError("three")
    return {"square": cell["k"] ** 2}


def test_recorded_cells_are_not_measured_again(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def run(count: int) -> list[Measured]:
        experiment = replace(
            TALK["noise"], cells=lambda scale: [{"k": k} for k in range(count)], measure=counting
        )
        return run_cells(
            experiment, "small", tmp_path, workers=1, data_dir=None,
            on_event=lambda name, event: told.append((event.done, event.total)),
        )  # fmt: skip

    assert [m.result["square"] for m in run(2)] == [0, 1]
    assert told == [(1, 2), (2, 2)]
    told.clear()
    with pytest.raises(ValueError, match="three"):
        run(4)
    assert told == [(3, 4)]  # the first two were there, the third is kept
    assert len(json.loads((tmp_path / RECORDS).read_text())) == 3
    (tmp_path / RECORDS).write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        run(2)


def test_cells_are_plain_and_distinct() -> None:
    for experiment in TALK.values():
        for scale in ("small", "full"):
            cells = experiment.cells(scale)  # type: ignore[arg-type]
            keys = {json.dumps(cell, sort_keys=True) for cell in cells}
            assert len(keys) == len(cells) > 0


@pytest.mark.parametrize("name", ["isotropic", "covariance"])
def test_noise_has_the_size_of_sgds(name: str) -> None:
    """Mean square of the noise over many steps against the exact trace of SGD's covariance."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    inputs, targets = torch.randn(12, 4), torch.randint(3, (12,))

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    parameters = list(model.parameters())
    rows = torch.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)])
            for value in (loss(model(inputs[k : k + 1]), targets[k : k + 1]) for k in range(12))
        ]
    )
    centered = rows - rows.mean(0)
    covariance = centered.T @ centered / 12 / 5  # of the mean of five samples, with replacement
    generator = torch.Generator().manual_seed(1)
    cell = {"method": name, "batch": 5}
    drawn = torch.stack(
        [
            torch.cat(
                [
                    g.flatten()
                    for g in noise._gradient(cell, loss, model, (inputs, targets), generator)
                ]
            )
            for _ in range(800)
        ]
    )
    found = torch.cov(drawn.T)
    assert torch.allclose(drawn.mean(0), rows.mean(0), atol=0.02)
    assert float(found.trace()) == pytest.approx(float(covariance.trace()), rel=0.12)
    if name == "covariance":
        assert float((found - covariance).norm() / covariance.norm()) < 0.2
    else:
        even = torch.eye(len(found)) * covariance.trace() / len(found)
        assert float((found - even).norm() / even.norm()) < 0.35


TINY = {
    "noise": {"samples": 40, "steps": 3, "batch": 5},
    "large-batch": {"samples": 60, "loss": 1.5, "steps": 60, "eigenvalues": 2, "batch": 20},
    "two-phase": {
        "problem": "digits_mlp", "samples": 60, "large": 30, "small": 10, "large_steps": 2,
        "small_steps": 4, "points": 4,
    },
    "connected": {
        "samples": 30, "steps": 10, "polish": 5, "gradients": 20, "width": 3, "pair": 0,
    },
    "mean-field": {"samples": 20, "steps": 5, "width": 4},
    "same-basin": {"samples": 30, "epochs": 1, "polish": 4, "gradients": 12, "points": 5,
                   "hidden": 4},
    "split": {"samples": 30, "epochs": [0, 1], "probes": 2, "k": 1},
    "memorization": {"samples": 40, "epochs": 4, "hidden": 8},
    "gd-sgd": {"samples": 40, "steps": 4},
    "ingredients": {"samples": 40, "epochs": 1},
    "redundancy": {"steps": 20_000},
}  # fmt: skip


@pytest.mark.parametrize("name", TALK)
def test_every_experiment_measures_and_writes_its_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = TALK[name]
    cells = list(experiment.cells("small"))
    chosen = [{**cell, **TINY[name]} for cell in cells[:1]]
    if name == "noise":
        chosen = [{**chosen[0], "method": m} for m in noise.METHODS]
    if name == "large-batch":
        chosen = [{**chosen[0], "batch": b, "rate": r} for b in (20, 60) for r in (0.1, 0.2)]
    if name == "mean-field":
        chosen = [{**chosen[0], "width": w, "seed": s} for w in (4, 8) for s in (0, 1)]
    if name == "split":
        chosen = [{**chosen[0], "loss": loss} for loss in ("hinge", "log loss")]
    if name == "memorization":
        chosen = [{**c, **TINY[name]} for c in cells if c["seed"] == 0]
    if name == "ingredients":
        chosen = [{**c, **TINY[name]} for c in cells if c["seed"] < 2]
    if name == "gd-sgd":
        chosen = [{**chosen[0], "method": method} for method in ("gd", "sgd")]
    tiny = replace(experiment, cells=lambda scale: chosen)
    monkeypatch.setitem(TALK, name, tiny)
    page, sections = reproduce(name, tmp_path, workers=1)
    text = html.unescape(page.read_text())
    for words, verdict, evidence in sections[0].conclusions:
        assert words in text
        assert verdict
        assert evidence
    assert experiment.source.split(",")[0].split(";")[0] in text
    assert "<svg" in text
    assert len(sections) == 1


@pytest.mark.parametrize("name", TALK)
def test_committed_records_give_their_page(name: str, tmp_path: Path) -> None:
    folder = RECORDED / name
    if not folder.exists():
        pytest.skip(f"no record of {name} is committed")
    rows = json.loads((folder / RECORDS).read_text())
    cells = [dict(cell) for cell in TALK[name].cells("small")]
    assert [row["cell"] for row in rows] == cells
    measured = [Measured(row["cell"], row["result"]) for row in rows]
    for section in TALK[name].sections(measured):
        assert all(verdict for _, verdict, _ in section.conclusions)


def test_the_recorded_noise_study_separates_shape_from_amount() -> None:
    """Guide, bar 15, on the committed record."""
    rows = json.loads((RECORDED / "noise" / RECORDS).read_text())
    first = {(r["cell"]["method"], r["cell"]["seed"]): r["result"]["eigenvalues"][0] for r in rows}
    for seed in range(3):
        shaped = max(first["sgd", seed], first["covariance", seed])
        assert shaped < min(first["gd", seed], first["isotropic", seed])
    assert all(r["result"]["converged"] for r in rows)


@pytest.mark.slow
def test_the_noise_study_repeats(tmp_path: Path) -> None:
    """Guide, bar 15: two minutes on two idle cores."""
    _, (section,) = reproduce("noise", tmp_path)
    assert section.conclusions[0][1].startswith("holds")
