"""What published tables and folders get wrong: order, identity, units, endings, strange files.

Each case has the right value; the first of a kind comes from a public report (issue 26, F1 to F18).
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optiscope.records import Measurement, Run, Status
from optiscope.stats.importers import (
    ImportFormatError,
    foreign_run,
    import_deepobs,
    import_table,
    imported_runs,
    keep_imported,
)
from optiscope.stats.published import published_settings
from stats.small_study import study

HEAD = "problem,optimizer,lr,batch_size,num_epochs,seed,epoch,"
RUN = "digits_logreg,adam,0.003,32,"


def table(tmp_path: Path, columns: str, *rows: str, name: str = "t.csv") -> Path:
    file = tmp_path / name
    file.write_text("\n".join([HEAD + columns, *rows]) + "\n", encoding="utf-8")
    return file


def deepobs(**changes: Any) -> dict[str, Any]:
    run = {
        "testproblem": "digits_logreg",
        "batch_size": 32,
        "random_seed": 1,
        "weight_decay": None,
        "optimizer_name": "SGD",
        "optimizer_hyperparams": {"lr": 0.1},
        "training_params": {},
        "num_epochs": 2,
        "train_losses": [2.3, 1.0, 0.9],
        "test_losses": [2.3, 1.1, 1.0],
    }
    return run | changes


def tensorflow(**changes: Any) -> dict[str, Any]:
    run = deepobs()
    for name in ("optimizer_name", "optimizer_hyperparams", "training_params"):
        del run[name]
    return run | {"optimizer": "SGD", "learning_rate": 0.1, "hyperparams": {}} | changes


def written(folder: Path, content: Any, name: str = "run.json") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def empty_study(tmp_path: Path) -> Any:
    return study(tmp_path / "study", {"A": (0.9, 0.91), "B": (0.8, 0.82)})


# Order of rows is not order of time.


@pytest.mark.parametrize("order", [(2, 0, 1), (2, 1, 0), (1, 2, 0), (0, 1, 2)])
def test_the_final_value_is_that_of_the_largest_epoch(tmp_path: Path, order: Any) -> None:
    values = {0: 0.1, 1: 0.8, 2: 0.9}
    rows = [f"{RUN}2,1,{epoch},{values[epoch]}" for epoch in order]
    (run,) = import_table(table(tmp_path, "test_accuracy", *rows))
    assert run.final == {"test_accuracy": 0.9}
    assert run.curve("test", "accuracy") == ([0.0, 1.0, 2.0], [0.1, 0.8, 0.9])


def test_foreign_runs_are_put_in_order_of_epochs() -> None:
    rows = [Measurement(-1, float(e), "test", "loss", 1.0 / (1 + e)) for e in (3, 1, 2)]
    run = foreign_run(
        source="s", problem="p", optimizer="o", hyperparameters={}, seed=0, epochs=3, batch_size=1,
        metrics=rows,
    )  # fmt: skip
    assert run.final == {"test_loss": 0.25}
    assert [m.epoch for m in run.metrics] == [1, 2, 3]


# Identity is decided once, by value.


@pytest.mark.parametrize(
    "other",
    [
        "digits_logreg,adam,3e-3,32,2,1,2,0.9",
        "digits_logreg,adam,.003,32.0,2.0,1.0,2.0,0.9",
        " digits_logreg , adam , 0.0030 ,32 ,2, 1,2 ,0.9 ",
        "digits_logreg,adam,+3.0E-03,3.2e1,2,1,2,0.9",
    ],
)
def test_one_run_however_its_values_are_written(tmp_path: Path, other: str) -> None:
    (run,) = import_table(table(tmp_path, "test_accuracy", f"{RUN}2,1,1,0.8", other))
    assert run.curve("test", "accuracy") == ([1.0, 2.0], [0.8, 0.9])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"momentum": 0.9, "lr": 0.1}', '{"lr":1e-1,"momentum":9e-1}'),
        ('{"lr": 0.1, "momentum": 0.9}', "lr__1.e-01__momentum__0.9"),
        ('{"lr": "0.1", "momentum": 0.9, "x": null}', '{"lr": 0.1, "momentum": 0.90}'),
        ('{"lr": 0.1, "betas": [0.9, 0.99]}', '{"betas": [0.9, 9.9e-1], "lr": 0.1}'),
        ('{"lr": 0.1, "nesterov": true}', "lr__0.1__nesterov__True"),
        ('{"lr": 1, "deep": {"a": 1, "b": 2.0}}', '{"deep": {"b": 2, "a": 1.0}, "lr": 1.0}'),
    ],
)
def test_hyperparameters_are_compared_by_value(tmp_path: Path, one: str, other: str) -> None:
    lines = ["problem,optimizer,batch_size,num_epochs,epoch,test_loss,hyperparameters"]
    for epoch, text in enumerate((one, other), start=1):
        lines.append(f'p,sgd,32,2,{epoch},1.0,"{text.replace(chr(34), chr(34) * 2)}"')
    (tmp_path / "t.csv").write_text("\n".join(lines))
    (run,) = import_table(tmp_path / "t.csv")
    assert run.curve("test", "loss")[0] == [1.0, 2.0]
    assert run.status is Status.FINISHED


def test_two_curves_under_one_identity_in_one_table_are_refused(tmp_path: Path) -> None:
    rows = f"{RUN}2,1,1,0.8", "digits_logreg,adam,3e-3,32,2,1,1,0.9"
    with pytest.raises(ImportFormatError, match=r"t\.csv, lines 2 and 3: epoch 1 of one run twice"):
        import_table(table(tmp_path, "test_accuracy", *rows))


def test_means_over_different_numbers_of_runs_are_not_told_apart(tmp_path: Path) -> None:
    lines = [
        "problem,optimizer,batch_size,num_epochs,n_runs,test_accuracy_mean",
        "p,sgd,32,2,10,0.9",
        "p,sgd,32,2,1,0.8",
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(ImportFormatError, match="lines 2 and 3: final values of one run twice"):
        import_table(tmp_path / "t.csv")


def test_a_horizon_that_is_stated_once_and_inferred_once(tmp_path: Path) -> None:
    rows = f"{RUN}2,1,2,0.8", "digits_logreg,adam,0.003,32,,1,2,0.9"
    with pytest.raises(ImportFormatError, match="lines 2 and 3: runs of one setting twice"):
        import_table(table(tmp_path, "test_accuracy", *rows))


def test_two_values_of_one_setting_are_refused(tmp_path: Path) -> None:
    lines = [
        "problem,optimizer,batch_size,num_epochs,lr,hyperparameters,test_loss",
        "p,sgd,32,2,0.1,lr__0.2,1.0",
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with pytest.raises(ImportFormatError, match=r"line 2: two values of lr, 0\.1 and 0\.2"):
        import_table(tmp_path / "t.csv")


def test_one_seed_run_twice_with_other_curves_is_kept_twice(tmp_path: Path) -> None:
    folder = empty_study(tmp_path)
    written(tmp_path / "obs", deepobs(), "random_seed__44__2019-08-09-16-24-05.json")
    again = deepobs(test_losses=[2.3, 1.2, 1.1])
    written(tmp_path / "obs", again, "random_seed__44__2019-08-09-16-50-12.json")
    runs = import_deepobs(tmp_path / "obs")
    assert keep_imported(folder, runs) == 2
    assert keep_imported(folder, runs) == 0
    assert sorted(run.final["test_loss"] for run in imported_runs(folder)) == [1.0, 1.1]
    (setting,) = published_settings(imported_runs(folder), "digits_logreg")
    assert setting.final("test_loss") == pytest.approx(1.05)


def test_equal_rows_in_two_files_are_one_run(tmp_path: Path) -> None:
    folder = empty_study(tmp_path)
    first = table(tmp_path, "test_accuracy", f"{RUN}1,1,1,0.8", name="one.csv")
    second = table(tmp_path, "test_acc", "digits_logreg,adam,3e-3,32,1,1,1,.80", name="two.csv")
    assert keep_imported(folder, import_table(first)) == 1
    assert keep_imported(folder, import_table(second)) == 0
    assert keep_imported(folder, import_table(first, source="a paper")) == 0
    assert len(imported_runs(folder)) == 1


def test_other_curves_from_another_file_are_kept_beside(tmp_path: Path) -> None:
    folder = empty_study(tmp_path)
    for name, value in (("one.csv", 0.8), ("two.csv", 0.7), ("a b.csv", 0.6), ("a-b.csv", 0.5)):
        file = table(tmp_path, "test_accuracy", f"{RUN}1,1,1,{value}", name=name)
        assert keep_imported(folder, import_table(file)) == 1
    values = [run.final["test_accuracy"] for run in imported_runs(folder)]
    assert sorted(values) == [0.5, 0.6, 0.7, 0.8]


def test_a_source_is_no_path_out_of_the_study(tmp_path: Path) -> None:
    folder = empty_study(tmp_path)
    file = table(tmp_path, "test_accuracy", f"{RUN}1,1,1,0.8")
    assert keep_imported(folder, import_table(file, source="../..")) == 1
    assert keep_imported(folder, import_table(file, source="..")) == 0
    assert len(imported_runs(folder)) == 1
    assert {p.name for p in folder.path.iterdir()} >= {"imported", "study.json"}
    assert not [p for p in tmp_path.iterdir() if p.name not in ("study", "t.csv")]


def test_a_run_that_goes_on_takes_the_place_of_its_beginning(tmp_path: Path) -> None:
    folder = empty_study(tmp_path)
    short = table(tmp_path, "test_accuracy", f"{RUN}2,1,1,0.8")
    assert keep_imported(folder, import_table(short)) == 1
    whole = table(tmp_path, "test_accuracy", f"{RUN}2,1,1,0.8", f"{RUN}2,1,2,0.9")
    assert keep_imported(folder, import_table(whole)) == 1
    short = table(tmp_path, "test_accuracy", f"{RUN}2,1,1,0.8")
    assert keep_imported(folder, import_table(short)) == 0
    (run,) = imported_runs(folder)
    assert run.final == {"test_accuracy": 0.9}


def test_batch_sizes_are_different_settings() -> None:
    def run(batch_size: int, loss: float) -> Run:
        return foreign_run(
            source="s", problem="p", optimizer="o", hyperparameters={"lr": 1}, seed=0, epochs=1,
            batch_size=batch_size, metrics=[Measurement(-1, 1.0, "test", "loss", loss)],
        )  # fmt: skip

    settings = published_settings([run(32, 1.0), run(64, 3.0)], "p")
    assert [setting.final("test_loss") for setting in settings] == [1.0, 3.0]


# Figures that cannot be what their name says.


@pytest.mark.parametrize(
    ("columns", "cells", "message"),
    [
        ("test_accuracy", "91.3", "test_accuracy: an accuracy is a fraction .* by 100 if"),
        ("test_acc", "1.5", "test_acc: an accuracy is a fraction between 0 and 1, got 1.5"),
        ("final_valid_acc_mean", "87.1", "final_valid_acc_mean: an accuracy"),
        ("train_accuracy", "-0.1", "train_accuracy: an accuracy"),
        ("test_accuracy,best_test_acc_mean", "0.9,92.5", "best_test_acc_mean: an accuracy"),
        ("test_accuracy_mean,test_accuracy_std", "0.913,1.2", "test_accuracy_std: .*points"),
        ("test_accuracy_mean,test_accuracy_std", "0.913,0.45", r"0\.3986 at most, got 0\.45"),
        ("test_accuracy_mean,test_accuracy_std", "0.9,-0.1", "deviation must be"),
        ("test_accuracy_mean,test_accuracy_std", "0.9,inf", "deviation must be"),
        ("test_loss_mean,test_loss_std", "0.9,-0.1", "deviation must be"),
        ("test_loss", "-0.3", "test_loss: a loss is at least 0"),
        ("train_loss", "91,3", "cells under"),
        ("test_accuracy", "91.3%", "test_accuracy: could not read '91.3%' as a number"),
        ("test_accuracy", "1_0", "could not read"),
        ("test_acc,test_accuracy", "0.9,0.8", "test accuracy stands in two columns"),
        ("val_acc", "88", "val_acc: an accuracy is a fraction"),
        ("Validation_Accuracy", "88", "validation_accuracy: an accuracy is a fraction"),
        ("val_acc,valid_accuracy", "0.9,0.8", "valid accuracy stands in two columns"),
        ("test_accuracy", "null", "leave the cell empty where nothing was measured"),
        ("test_loss", "-", "leave the cell empty where nothing was measured"),
    ],
)
def test_implausible_figures_are_refused_with_their_line(
    tmp_path: Path, columns: str, cells: str, message: str
) -> None:
    filler = "," * columns.count(",")
    file = table(tmp_path, columns, f"{RUN}3,1,1,{filler}", f"{RUN}3,1,2,{cells}")
    with pytest.raises(ImportFormatError, match=rf"t\.csv, line 3: .*{message}") as error:
        import_table(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("top5_accuracy", 91.3, "divide it by 100"),
        ("accuracy_top1", 91.3, "divide it by 100"),
        ("balanced_acc", -0.1, "fraction between 0 and 1"),
        ("top5_accuracy_std", 5.0, "0.7071"),
        ("error_rate", 8.7, "fraction between 0 and 1"),
        ("perplexity", 0.5, "at least 1"),
        ("mse", -1.0, "at least 0"),
        ("f1_std", -1.0, "deviation must be"),
    ],
)
def test_other_metrics_are_judged_by_what_their_names_say(
    name: str, value: float, words: str
) -> None:
    with pytest.raises(ImportFormatError, match=words):
        foreign_run(
            source="s", problem="p", optimizer="o", hyperparameters={}, seed=0, epochs=1,
            batch_size=1, metrics=[Measurement(-1, 1.0, "test", name, value)],
        )  # fmt: skip


def test_names_of_columns_in_other_letters(tmp_path: Path) -> None:
    file = tmp_path / "caps.csv"
    file.write_text(
        "Problem,Optimizer,Learning_Rate,Batch_Size,Num_Epochs,Seed,Epoch,Val_Accuracy,Test_Acc\n"
        "p,adam,3e-3,32,2,1,2,0.8,0.9\np,adam,0.003,32,2,1,1,0.7,0.6\n"
    )
    (run,) = import_table(file)
    assert run.final == {"valid_accuracy": 0.8, "test_accuracy": 0.9}
    assert run.trial.hyperparameters == {"lr": 0.003}


@pytest.mark.parametrize("name", ["step", "_step", "Global_Step", "iteration"])
def test_another_time_than_epochs_is_not_taken_for_the_end(tmp_path: Path, name: str) -> None:
    file = tmp_path / "steps.csv"
    file.write_text(
        f"problem,optimizer,lr,batch_size,num_epochs,{name},test_accuracy\np,adam,1,32,20,5,0.9\n"
    )
    with pytest.raises(ImportFormatError, match=f"has a column {name.casefold()} and none called"):
        import_table(file)


@pytest.mark.parametrize("lr", ['"0,003"', "fast", "true"])
def test_a_rate_that_is_no_number_is_refused(tmp_path: Path, lr: str) -> None:
    file = tmp_path / "rate.csv"
    file.write_text(
        f"problem,optimizer,lr,batch_size,num_epochs,test_accuracy\np,adam,{lr},32,2,0.9\n"
    )
    with pytest.raises(ImportFormatError, match=r"rate\.csv, line 2: lr must be a number"):
        import_table(file)


def test_plausible_figures_at_the_edge(tmp_path: Path) -> None:
    columns = "test_accuracy_mean,test_accuracy_std,test_loss_mean,test_loss_std"
    rows = f"{RUN}2,1,1,1.0000001,0,0,0", f"{RUN}2,1,2,0.5,0.7,12,30"
    (run,) = import_table(table(tmp_path, columns, *rows))
    assert run.status is Status.FINISHED
    assert run.curve("test", "accuracy_std") == ([1.0, 2.0], [0.0, 0.7])


def test_the_deviation_of_one_run_is_not_measured(tmp_path: Path) -> None:
    columns = "n_runs,test_accuracy_mean,test_accuracy_std"
    (run,) = import_table(table(tmp_path, columns, f"{RUN}1,,1,1,0.9,nan"))
    assert run.status is Status.FINISHED
    assert run.curve("test", "accuracy_std") == ([], [])


def test_deepobs_figures_are_checked_too(tmp_path: Path) -> None:
    percent = deepobs(test_accuracies=[10.0, 90.0, 91.3])
    with pytest.raises(ImportFormatError, match=r"run\.json .* test accuracy at epoch 0: an acc"):
        import_deepobs(written(tmp_path, percent))
    with pytest.raises(ImportFormatError, match="test loss at epoch 2: a loss is at least 0"):
        import_deepobs(written(tmp_path, deepobs(test_losses=[2.3, 1.0, -1.0])))


# The status comes from the curve.


@pytest.mark.parametrize(
    "cells", ["NaN,NaN", "0.1,nan", "0.1,inf", "nan,", ",-inf", "nan,0.5", "0.1,Infinity"]
)
def test_a_value_that_is_no_number_is_divergence(tmp_path: Path, cells: str) -> None:
    columns = "test_accuracy,test_loss"
    rows = f"{RUN}3,1,1,0.8,0.5", f"{RUN}3,1,2,{cells}", f"{RUN}3,1,3,0.1,0.6"
    (run,) = import_table(table(tmp_path, columns, *rows))
    assert run.status is Status.DIVERGED
    assert "was no number at epoch 2" in run.reason
    assert run.best["test_accuracy"] == 0.8


def test_an_empty_cell_was_not_measured(tmp_path: Path) -> None:
    columns = "test_accuracy,train_loss"
    rows = f"{RUN}2,1,1,,0.5", f"{RUN}2,1,2,0.9,0.4"
    (run,) = import_table(table(tmp_path, columns, *rows))
    assert run.status is Status.FINISHED
    assert run.curve("test", "accuracy") == ([2.0], [0.9])


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
@pytest.mark.parametrize("layout", [deepobs, tensorflow])
def test_deepobs_values_that_are_no_numbers(tmp_path: Path, layout: Any, value: Any) -> None:
    (run,) = import_deepobs(written(tmp_path, layout(test_losses=[2.3, value, 1.0])))
    assert run.status is Status.DIVERGED
    assert "test loss was no number at epoch 1" in run.reason


def test_a_curve_of_nothing_but_null_was_not_measured(tmp_path: Path) -> None:
    (run,) = import_deepobs(written(tmp_path, deepobs(test_accuracies=[None, None, None])))
    assert run.status is Status.FINISHED
    assert set(run.final) == {"train_loss", "test_loss"}


# The horizon is not a label.


def test_a_deepobs_run_shorter_than_its_horizon_is_not_finished(tmp_path: Path) -> None:
    (run,) = import_deepobs(written(tmp_path, deepobs(num_epochs=100)))
    assert run.status is Status.INTERRUPTED
    assert run.reason.endswith("ended at epoch 2 of 100")
    assert run.final == {}
    assert run.best["test_loss"] == 1.0


def test_a_table_that_ends_before_its_horizon(tmp_path: Path) -> None:
    rows = [f"{RUN}10,1,{epoch},0.8" for epoch in range(3)]
    (run,) = import_table(table(tmp_path, "test_accuracy", *rows))
    assert (run.status, run.final) == (Status.INTERRUPTED, {})


def test_a_figure_that_was_not_measured_at_the_horizon_has_no_final_value(tmp_path: Path) -> None:
    rows = f"{RUN}3,1,2,0.8,1.0", f"{RUN}3,1,3,,0.9"
    (run,) = import_table(table(tmp_path, "test_accuracy,train_loss", *rows))
    assert (run.status, run.final) == (Status.FINISHED, {"train_loss": 0.9})


@pytest.mark.parametrize("epoch", ["-1", "1.5", "4", "nan", "inf", "1e9"])
def test_epochs_that_cannot_be_are_refused(tmp_path: Path, epoch: str) -> None:
    with pytest.raises(ImportFormatError, match=r"t\.csv, line 2: epoch"):
        import_table(table(tmp_path, "test_accuracy", f"{RUN}3,1,{epoch},0.9"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p,sgd,0.1,32.5,3,1,1,0.9", "batch_size must be a whole number of at least 1, got 32.5"),
        ("p,sgd,0.1,0,3,1,1,0.9", "batch_size must be"),
        ("p,sgd,0.1,32,2.5,1,1,0.9", "num_epochs must be a whole number"),
        ("p,sgd,0.1,32,-3,1,1,0.9", "num_epochs must be a whole number"),
        ("p,sgd,0.1,32,3,1.5,1,0.9", "seed must be a whole number"),
        ("p,sgd,nan,32,3,1,1,0.9", "lr must be a finite number"),
        (",sgd,0.1,32,3,1,1,0.9", "no problem"),
        ("p,,0.1,32,3,1,1,0.9", "no optimizer"),
        ("p,sgd,0.1,32,3,1,1,", "no figure in any of its rows"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(ImportFormatError, match=rf"t\.csv, line 2: {message}"):
        import_table(table(tmp_path, "test_accuracy", row))


def test_deepobs_curves_beyond_the_horizon(tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match="epoch 2 lies beyond the horizon of 1 epochs"):
        import_deepobs(written(tmp_path, deepobs(num_epochs=1)))
    with pytest.raises(ImportFormatError, match=r"num_epochs must be .* got 2\.5"):
        import_deepobs(written(tmp_path, deepobs(num_epochs=2.5)))


# Values that are all equal.

FLAT = {"train_losses": [2.3] * 4, "test_losses": [2.3] * 4, "num_epochs": 3}


@pytest.mark.parametrize(
    "content",
    [
        tensorflow(**FLAT),
        deepobs(**FLAT, minibatch_train_losses=[2.2, 2.4, 2.3, 2.1, 2.5, 2.3, 2.35]),
        deepobs(**FLAT, optimizer_hyperparams={"lr": 0.0}),
        tensorflow(train_losses=[2.3, 2.0, 2.3, 2.3], test_losses=[2.3, 2.1, 2.3, 2.3],
                   num_epochs=3),
    ],
    ids=["tensorflow", "minibatches vary", "no step", "tensorflow, partly"],
)  # fmt: skip
def test_values_that_stand_still_may_be_honest(tmp_path: Path, content: Any) -> None:
    (run,) = import_deepobs(written(tmp_path, content))
    assert run.status is Status.FINISHED
    assert run.curve("test", "loss")[0] == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "steps", [[2.2, 2.4, 2.2, 2.2, 2.2], [2.2], [], [2.2, 1e9, math.inf, 3.0, 4.0]]
)
def test_a_run_that_was_filled_up_from_the_start(tmp_path: Path, steps: list[float]) -> None:
    content = deepobs(**FLAT, minibatch_train_losses=steps)
    (run,) = import_deepobs(written(tmp_path, content))
    assert run.status is Status.DIVERGED
    assert "3 epochs filled up" in run.reason


# Rows and files that are none.


def test_train_and_test_on_rows_of_their_own(tmp_path: Path) -> None:
    columns = "train_loss,test_accuracy"
    rows = f"{RUN}1,1,1,0.5,", f"{RUN}1,1,1,,0.8"
    (run,) = import_table(table(tmp_path, columns, *rows))
    assert run.final == {"train_loss": 0.5, "test_accuracy": 0.8}
    rows = (*rows, f"{RUN}1,1,1,,0.8")
    with pytest.raises(ImportFormatError, match="lines 3 and 4: epoch 1 of one run twice"):
        import_table(table(tmp_path, columns, *rows))


@pytest.mark.parametrize("blank", [",,,,,,,", "", " , ,\t,,,,,", ",,,,,,,,,"])
def test_blank_rows_are_skipped(tmp_path: Path, blank: str) -> None:
    rows = blank, f"{RUN}2,1,1,0.8", blank, f"{RUN}2,1,2,91", blank
    with pytest.raises(ImportFormatError, match="line 5: test_accuracy"):
        import_table(table(tmp_path, "test_accuracy", *rows))
    rows = blank, f"{RUN}2,1,1,0.8", blank, f"{RUN}2,1,2,0.9", blank
    (run,) = import_table(table(tmp_path, "test_accuracy", *rows))
    assert run.final == {"test_accuracy": 0.9}


STRANGE = {
    "convergence_performance.json": {"mnist_mlp": {"SGD": 0.9}},
    "config.json": {"optimizer": "SGD", "lr": 0.1, "num_epochs": 3},
    "index.json": ["a", "b"],
    "wandb-summary.json": {"test_accuracy": 0.9, "_step": 100},
    "deep/package.json": "3",
    ".ipynb_checkpoints/run-checkpoint.json": deepobs(),
    ".hidden.json": "{",
    "empty.json": "",
    "lines.json": '{"step": 1}\n{"step": 2}\n',
    "tsconfig.json": '// settings\n{"compilerOptions": {}}',
}


def test_what_is_no_run_is_left_out_of_a_folder_and_named(tmp_path: Path) -> None:
    obs = tmp_path / "obs"
    written(obs, deepobs(), "SGD/run.json")
    for name, content in STRANGE.items():
        written(obs, content, name)
    (obs / "a_folder.json").mkdir()
    (obs / "nowhere.json").symlink_to("/nowhere/at/all")
    (obs / "marked.json").write_bytes(b'\xef\xbb\xbf{"lr": 0.1}')
    (obs / "latin1.json").write_bytes(b'{"name": "\xe9"}')
    left_out: list[str] = []
    (run,) = import_deepobs(obs, on_left_out=left_out.append)
    assert run.final["test_loss"] == 1.0
    assert len(left_out) == len(STRANGE) + 4
    assert all(any(str(Path(name)) in line for line in left_out) for name in STRANGE)
    with pytest.warns(UserWarning, match="left out") as warned:
        import_deepobs(obs)
    assert len(warned) == len(STRANGE) + 4


@pytest.mark.parametrize(
    "content",
    [
        '{"testproblem": "p", "train_losses": [2.3, 1.',
        deepobs(test_losses=[]),
        {k: v for k, v in deepobs().items() if not k.endswith("losses")},
        {k: v for k, v in deepobs().items() if k != "testproblem"},
        deepobs(train_losses="high"),
        deepobs(optimizer_hyperparams=3),
        deepobs(test_losses=[2.3, True, 1.0]),
        deepobs(test_losses={"a": 1}),
        deepobs(test_losses=5),
        deepobs(training_params=[1]),
        deepobs(optimizer_hyperparams=None),
        deepobs(test_losses="2.3"),
        '{"train_losses": [2.3, NaN, 1.0],, ',
    ],
)
def test_a_damaged_run_in_a_folder_is_an_error(tmp_path: Path, content: Any) -> None:
    written(tmp_path, deepobs(), "a.json")
    written(tmp_path, content, "b.json")
    with pytest.raises(ImportFormatError, match=r"b\.json"):
        import_deepobs(tmp_path)


def test_a_folder_without_any_run(tmp_path: Path) -> None:
    written(tmp_path, {"a": 1}, "config.json")
    with pytest.raises(ImportFormatError, match="holds no run of DeepOBS: left out"):
        import_deepobs(tmp_path)


def test_the_command_names_what_it_leaves_out(tmp_path: Path) -> None:
    folder = empty_study(tmp_path)
    written(tmp_path / "obs", deepobs(), "run.json")
    written(tmp_path / "obs", {"a": 1}, "config.json")
    words = ["import", str(tmp_path / "obs"), str(folder.path)]
    program = "from optiscope.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1 runs read" in done.stdout
    assert "config.json: it holds no run of DeepOBS" in done.stderr


# Siblings of the kinds above.


@pytest.mark.parametrize("end", [",", ";", "\t"])
def test_cells_are_separated_as_the_header_says(tmp_path: Path, end: str) -> None:
    lines = [HEAD + "test_accuracy", f"{RUN}2,1,2,0.9", f"{RUN}2,1,1,0.8"]
    (tmp_path / "t.csv").write_text("\n".join(lines).replace(",", end))
    (run,) = import_table(tmp_path / "t.csv")
    assert run.final == {"test_accuracy": 0.9}


def test_decimal_commas_are_refused_with_their_line(tmp_path: Path) -> None:
    text = "problem;optimizer;lr;batch_size;num_epochs;test_accuracy\np;adam;0,003;32;2;0,9\n"
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ImportFormatError, match=r"line 2: lr must be a number .* got '0,003'"):
        import_table(tmp_path / "t.csv")


@pytest.mark.parametrize("column", ["name", "run_id", "Run", "momentum", "weight_decay"])
def test_rows_of_two_runs_are_never_put_together(tmp_path: Path, column: str) -> None:
    rows = f"{RUN}3,1,2,1,0.8", f"{RUN}3,1,3,2,0.9"
    with pytest.raises(ImportFormatError, match=f"3: two values of {column.casefold()}, 1 and 2"):
        import_table(table(tmp_path, f"{column},test_accuracy", *rows))
    rows = f"{RUN}3,1,2,1,0.8", f"{RUN}3,1,3,1.0,0.9"
    (run,) = import_table(table(tmp_path, f"{column},test_accuracy", *rows))
    assert run.curve("test", "accuracy") == ([2.0, 3.0], [0.8, 0.9])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_best_value_is_not_that_of_the_last_row(tmp_path: Path, order: Any) -> None:
    rows = [f"{RUN}2,1,1,0.8,0.95", f"{RUN}2,1,2,0.9,0.9"]
    columns = "test_accuracy,best_test_acc_mean"
    (run,) = import_table(table(tmp_path, columns, *(rows[n] for n in order)))
    assert run.best == {"test_accuracy": 0.95}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p,sgd,0.1,32,1e308,1,1,0.9", "num_epochs must be at most 9007199254740992"),
        ("p,sgd,0.1,1e30,3,1,1,0.9", "batch_size must be at most"),
        ("p,sgd,0.1,32,3,1e17,1,0.9", "seed must be at most"),
    ],
)
def test_counts_beyond_all_reason_are_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(ImportFormatError, match=rf"line 2: {message}") as error:
        import_table(table(tmp_path, "test_accuracy", row))
    assert len(str(error.value)) < 400


def test_tables_without_rows_or_in_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match="no row below its header"):
        import_table(table(tmp_path, "test_accuracy", ",,,"))
    (tmp_path / "t.csv").write_text(HEAD + "test_accuracy\n", encoding="utf-16")
    with pytest.raises(ImportFormatError, match="save it as a CSV file in UTF-8"):
        import_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(deepobs())[:-1] + ', "test_losses": [9, 9, 9]}', "'test_losses' stands twice"),
        (json.dumps(deepobs()).replace('"lr": 0.1', '"lr": 0.1, "lr": 5'), "'lr' stands twice"),
        (deepobs(optimizer_name=None), "the optimizer must be a name, got None"),
        (deepobs(optimizer_name=["SGD"]), "the optimizer must be a name"),
        (deepobs(testproblem=" "), "testproblem must be a name"),
        (deepobs(optimizer_hyperparams={"lr": math.inf}), "must be finite numbers"),
        (deepobs(test_losses=[2.3, 10**400, 1.0]), "test_losses must hold numbers below"),
        (deepobs(**FLAT, minibatch_train_losses=5), "minibatch_train_losses must be a list"),
        (deepobs(**FLAT, minibatch_train_losses=[{}]), "minibatch_train_losses must hold numbers"),
        (
            deepobs(training_params={"lr_sched_epochs": 5, "lr_sched_factors": [1]}),
            "lr_sched_factors must be lists, got 5",
        ),
    ],
)
def test_deepobs_runs_that_contradict_themselves(
    tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(ImportFormatError, match=message) as error:
        import_deepobs(written(tmp_path, content))
    assert len(str(error.value)) < 400
