"""Studies and watches in TensorBoard, W&B, MLflow and Optuna, read back by those programs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import optiscope
from optiscope.cli.root import root
from optiscope.records import Entry, Measurement, Run, Status, StudyFolder, Trial
from optiscope.records.exports.optuna import export_tunings, storage_at
from optiscope.records.exports.plain import flat
from optiscope.records.exports.tracker import ExportError, open_tracker
from optiscope.records.run import summarise

SPACE = {
    "lr": {"low": 0.01, "high": 1.0, "log": True},
    "nesterov": {"choice": [True, False]},
    "warmup": {"low": 0, "high": 9, "log": False, "integer": True},
}


def record(trial: Trial, status: Status = Status.FINISHED) -> Run:
    rate = float(trial.hyperparameters["lr"])
    curve = [
        Measurement(10 * epoch, float(epoch), split, "loss", rate + 1 / (epoch + 1))
        for epoch in range(3)
        for split in ("valid", "test")
    ]
    final, best = summarise(curve)
    return Run(
        trial=trial,
        status=status,
        reason="" if status is Status.FINISHED else "the loss is nan at step 20",
        steps=20,
        seconds={},
        counts={"gradient_evaluations": 20, "hessian_products": 0},
        peak_memory_bytes=None,
        environment={},
        started="2026-11-30T10:00:00+00:00",
        metrics=curve,
        final=final,
        best=best,
    )


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "study")
    folder.write_declaration(
        {
            "schema": 1,
            "name": "small",
            "question": "which?",
            "problems": ["p"],
            "algorithms": [{"label": "sgd", "optimizer": "sgd", "space": SPACE, "budget": 2}],
            "tuning": {"seeds": [1], "select": "valid_loss"},
            "seeds": [2],
            "epochs": {"p": 2},
            "metric": {"p": "loss"},
        }
    )
    entries = []
    parts = [
        ("tuning", 0, 1, 0.1, Status.FINISHED),
        ("tuning", 1, 1, 0.5, Status.DIVERGED),
        ("reporting", -1, 2, 0.1, Status.FINISHED),
    ]
    for role, index, seed, rate, status in parts:
        point = {"lr": rate, "nesterov": True, "warmup": 3, "momentum": 0.9}
        trial = Trial("p", 1, "sgd", point, seed, 2, 8)
        folder.store.write(record(trial, status))
        entries.append(Entry(trial.hash, "sgd", "p", role, index, point, seed))
    missing = Trial("p", 1, "sgd", {"lr": 0.2}, 3, 2, 8)
    entries.append(Entry(missing.hash, "sgd", "p", "reporting", -1, {"lr": 0.2}, 3))
    folder.write_ledger(entries)
    return folder


def export(folder: StudyFolder, *arguments: str) -> str:
    result = CliRunner().invoke(root, ["export", str(folder.path), *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def train(tmp_path: Path, to: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    criterion = nn.CrossEntropyLoss()
    watch = optiscope.watch(model, optimizer, criterion, on_finding="log")
    watch.export(to, tmp_path / "live", name="mine")
    for _ in range(25):
        criterion(model(torch.randn(8, 4)), torch.randint(0, 3, (8,))).backward()
        optimizer.step()  # gradients are never cleared: a finding
    watch.close()


def test_tensorboard_reads_a_study_and_a_live_watch(study: StudyFolder, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said = export(study, "--to", "tensorboard", "--out", str(tmp_path / "tb"))
    assert "3 runs" in said
    assert "1 not recorded yet" in said
    names = sorted(path.name for path in (tmp_path / "tb" / "small").iterdir())
    assert names == ["p sgd #0 seed 1", "p sgd #1 seed 1", "p sgd seed 2"]

    def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
        reader = EventAccumulator(str(folder))
        reader.Reload()
        return [(event.step, event.value) for event in reader.Scalars(name)]

    curve = scalars(tmp_path / "tb" / "small" / "p sgd seed 2", "valid/loss")
    assert [step for step, _ in curve] == [0, 10, 20]
    assert [value for _, value in curve] == pytest.approx([1.1, 0.6, 0.1 + 1 / 3])
    train(tmp_path, "tensorboard")
    reader = EventAccumulator(str(tmp_path / "live" / "watch" / "mine"))
    reader.Reload()
    assert [event.step for event in reader.Scalars("loss")] == list(range(25))
    assert "finding/gradient_not_cleared/text_summary" in reader.Tags()["tensors"]


def test_mlflow_reads_a_study_and_a_live_watch(study: StudyFolder, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed")
    pytest.importorskip("sqlalchemy", reason="MLflow's SQLite store needs SQLAlchemy")
    from mlflow.tracking import MlflowClient

    from optiscope.records.exports.mlflow import address

    export(study, "--to", "mlflow", "--out", str(tmp_path / "ml"))
    client = MlflowClient(address(tmp_path / "ml"))
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs["p sgd #1 seed 1"].info.status == "FAILED"
    assert runs["p sgd #1 seed 1"].data.tags["reason"] == "the loss is nan at step 20"
    assert runs["p sgd seed 2"].info.status == "FINISHED"
    assert runs["p sgd seed 2"].data.params["hyperparameters.lr"] == "0.1"
    history = client.get_metric_history(runs["p sgd seed 2"].info.run_id, "valid/loss")
    assert [(m.step, m.value) for m in history] == [(0, 1.1), (10, 0.6), (20, 0.1 + 1 / 3)]
    train(tmp_path, "mlflow")
    client = MlflowClient(address(tmp_path / "live"))
    found = client.get_experiment_by_name("watch")
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FINISHED"
    assert "finding/gradient_not_cleared" in run.data.tags
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 25


def records_in(data: bytes) -> list[bytes]:
    """Records of a log in LevelDB's format (blocks of 32 KiB) behind W&B's header of 7 bytes."""
    records, part, at = [], b"", 7
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if at + 7 + length > len(data):
            break  # still being written
        piece = data[at + 7 : at + 7 + length]
        at += 7 + length
        part = piece if kind in (1, 2) else part + piece
        if kind in (1, 4):  # whole, or the last part
            records.append(part)
    return records


def test_wandb_reads_a_study_offline(
    study: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="W&B is not installed")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    export(study, "--to", "wandb", "--out", str(tmp_path / "wb"))
    files = list((tmp_path / "wb" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 3

    def messages(file: Path) -> list[Any]:
        """Records of a run; W&B's own process may write the last after ``finish`` returned."""
        end = time.monotonic() + 120
        while True:
            records = []
            for data in records_in(file.read_bytes()):
                records.append(wandb_internal_pb2.Record())
                records[-1].ParseFromString(data)
            if any(record.WhichOneof("record_type") == "exit" for record in records):
                return records
            assert time.monotonic() < end, f"{file} does not end"
            time.sleep(0.05)

    curves: dict[str, list[str]] = {}
    for file in files:
        name, rows = "", []
        for message in messages(file):
            name = message.run.display_name or name
            for item in message.history.item:
                if "valid/loss" in (item.key, *item.nested_key):
                    rows.append(item.value_json)
        curves[name] = rows
    assert [float(v) for v in curves["p sgd seed 2"]] == [1.1, 0.6, 0.1 + 1 / 3]


@pytest.mark.parametrize("file", ["tuning.journal", "tuning.db"])
def test_optuna_reads_the_tunings(study: StudyFolder, tmp_path: Path, file: str) -> None:
    import optuna

    said = export(study, "--to", "optuna", "--out", str(tmp_path / file))
    assert "1 tunings" in said
    (summary,) = optuna.get_all_study_summaries(storage_at(tmp_path / file))
    assert summary.study_name == "small: p, sgd"
    loaded = optuna.load_study(study_name=summary.study_name, storage=storage_at(tmp_path / file))
    good, bad = loaded.trials
    assert good.value == pytest.approx(0.1 + 1 / 3)
    assert good.params == {"lr": 0.1, "nesterov": True, "warmup": 3}
    assert good.user_attrs["fixed.momentum"] == 0.9
    assert good.intermediate_values[10] == pytest.approx(0.6)
    assert bad.state == optuna.trial.TrialState.FAIL
    assert loaded.best_trial.number == good.number
    with pytest.raises(ExportError, match="already"):
        export_tunings(study, tmp_path / file)


def test_a_missing_library_is_said_and_nothing_else(
    study: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ExportError, match=r'pip install "optiscope\[wandb\]"'):
        open_tracker("wandb", tmp_path, name="a")
    with pytest.raises(ExportError, match="did you mean 'wandb'"):
        open_tracker("wandbb", tmp_path, name="a")
    result = CliRunner().invoke(root, ["export", str(tmp_path / "none"), "--to", "tensorboard"])
    assert result.exit_code != 0


def test_settings_become_flat() -> None:
    nested: dict[str, Any] = {"a": {"b": 1, "c": None, "d": {}}, "e": [1, 2], "f": True}
    assert flat(nested) == {"a.b": 1, "e": "[1, 2]", "f": True}
