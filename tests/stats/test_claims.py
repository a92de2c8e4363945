"""What studies support, and what they are refused."""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optiscope.records import Run, Status, StoreError
from optiscope.stats.claim_question import QuestionError
from optiscope.stats.claims import Claim, claim, next_seed_count, study_claims
from optiscope.stats.comparison import Verdict, paired_comparison
from optiscope.stats.refusal import Refusal
from optiscope.stats.study_table import read_study
from optiscope.stats.study_toml import study_toml
from optiscope.stats.tuning_curve import tuning_summaries
from stats.small_study import ADAM, PROBLEM, SEEDS, SGD, TWO, algorithm, planned, run, study

NAN = math.nan


def only(folder: Any) -> Claim | Refusal:
    (answer,) = study_claims(folder)
    return answer


def refused(folder: Any, rule: str) -> Refusal:
    answer = only(folder)
    assert isinstance(answer, Refusal)
    assert answer.rule == rule
    json.dumps(answer.to_dict(), allow_nan=False)
    return answer


def suggested(refusal: Refusal) -> dict[str, Any]:
    assert refusal.study_that_would_answer is not None
    return tomllib.loads(refusal.study_that_would_answer)


def test_a_claim_names_everything_it_rests_on(tmp_path: Path) -> None:
    found = only(study(tmp_path, TWO))
    assert isinstance(found, Claim)
    alone = paired_comparison(ADAM, SGD, higher_is_better=True, assumption="normal")
    assert found.comparison == alone
    assert found.verdict is Verdict.BETTER
    assert (found.metric, found.epochs, found.family) == ("accuracy", 100, 1)
    assert found.a_name == "Adam(lr log[1e-5, 0.1]; budget 4 by grid)"
    for part in (PROBLEM, "100 epochs", "test accuracy", "95 % interval", "paired t test",
                 "5 seeds", found.a_name, found.b_name):  # fmt: skip
        assert part in found.sentence
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["verdict"] == "better"
    assert plain["comparison"]["interval"] == pytest.approx(list(alone.interval or ()))


def test_a_loss_is_better_when_lower(tmp_path: Path) -> None:
    found = only(study(tmp_path, TWO, metric={PROBLEM: "loss"}))
    assert isinstance(found, Claim)
    assert found.verdict is Verdict.WORSE


def test_all_comparisons_of_the_study_are_one_family(tmp_path: Path) -> None:
    values = TWO | {"Lark": tuple(x + 0.001 for x in ADAM[::-1])}
    answers = study_claims(study(tmp_path, values, problems=(PROBLEM, "other")))
    assert [(x.problem, x.a, x.b) for x in answers] == [
        (p, a, b)
        for p in (PROBLEM, "other")
        for a, b in (("Adam", "SGD"), ("Adam", "Lark"), ("SGD", "Lark"))
    ]
    levels = [x.comparison.level for x in answers if isinstance(x, Claim)]
    assert len(levels) == 6
    assert min(levels) == pytest.approx(0.05 / 6)
    assert max(levels) < 0.05
    assert all(isinstance(x, Claim) and x.family == 6 for x in answers)


def test_comparisons_still_to_come_are_of_the_family(tmp_path: Path) -> None:
    """Else an algorithm that has not run yet would make the others' verdicts easier."""
    values = TWO | {"Lark": tuple(x + 0.001 for x in ADAM[::-1])}
    folder = study(tmp_path, values)
    finished = {(x.a, x.b): x for x in study_claims(folder)}["Adam", "SGD"]
    for entry in folder.ledger():
        if entry.algorithm == "Lark" and entry.role == "reporting":
            shutil.rmtree(folder.store.path(entry.trial_hash))
    (before,) = [x for x in study_claims(folder) if isinstance(x, Claim)]
    assert (before.a, before.b, before.family) == ("Adam", "SGD", 3)
    assert before.comparison.level == pytest.approx(0.05 / 3)
    assert before.correction == "Holm over 3 comparisons, 2 of them unfinished"
    assert isinstance(finished, Claim)
    assert before.verdict is finished.verdict


def test_equivalence_within_the_declared_margin(tmp_path: Path) -> None:
    near = {"Adam": ADAM, "SGD": tuple(x + d for x, d in zip(ADAM, (1e-4, -2e-4, 0, 1e-4, 2e-4),
                                                             strict=True))}  # fmt: skip
    found = only(study(tmp_path / "one", near, equivalence_margin=0.005))
    assert found.verdict is Verdict.EQUIVALENT  # type: ignore[union-attr]
    found = only(study(tmp_path / "two", near, equivalence_margin={PROBLEM: 0.005}))
    assert found.verdict is Verdict.EQUIVALENT  # type: ignore[union-attr]


def test_diverged_runs_are_outcomes(tmp_path: Path) -> None:
    found = only(study(tmp_path, {"Adam": ADAM, "SGD": (*SGD[:-1], NAN)}))
    assert isinstance(found, Claim)
    assert found.comparison.diverged_b == 1
    assert found.verdict is Verdict.UNDECIDED
    assert "too few to decide anything: at least 6 are needed" in found.sentence
    assert "1 of the second failed" in found.sentence


# --- the protocol's example ---------------------------------------------------------------------


def crossing_curves(path: Path) -> Any:
    """Adam leads until epoch 80 and is overtaken; both were tuned for 100 epochs."""
    seeds = range(100, 108)
    folder = study(path, TWO, seeds=seeds, assumption="symmetric")
    entries = [e for e in folder.ledger() if e.role == "tuning"]
    shutil.rmtree(folder.store.root)
    epochs = range(101)
    for e in entries:
        folder.store.write(run(e.algorithm, PROBLEM, 0, e.hyperparameters, [0.1, 0.5]))
    for seed in seeds:
        for label, level, slope in (("Adam", 0.90, 0.0), ("SGD", 0.86, 0.0005)):
            curve = [level + slope * e + 0.002 * math.sin(seed * level) for e in epochs]
            made = run(label, PROBLEM, seed, {"lr": 1e-3}, curve)
            folder.store.write(made)
            entries.append(planned(made, label, "reporting", -1))
    folder.write_ledger(entries)
    return folder


def test_curves_that_cross_support_no_claim_at_the_crossing(tmp_path: Path) -> None:
    folder = crossing_curves(tmp_path)
    at_the_end = claim("sgd better than adam", folder)
    assert isinstance(at_the_end, Claim)
    assert at_the_end.supported
    refusal = claim("adam better than sgd on fmnist_2c2d at 80 epochs", folder)
    assert isinstance(refusal, Refusal)
    assert refusal.rule == "horizon"
    assert "tuned for 100 epochs" in refusal.reason
    assert "not for 80" in refusal.reason
    answer = suggested(refusal)
    assert answer["epochs"] == 80
    assert answer["problems"] == [PROBLEM]
    assert [a["label"] for a in answer["algorithms"]] == ["Adam", "SGD"]
    assert answer["algorithms"][0]["space"] == {"lr": {"low": 1e-5, "high": 0.1, "log": True}}


# --- refusals -----------------------------------------------------------------------------------


def test_runs_of_another_horizon_than_declared(tmp_path: Path) -> None:
    folder = study(tmp_path / "a", TWO, tuning_changes={"SGD": {"epochs": 20}})
    assert "SGD was tuned for 20 epochs" in refused(folder, "horizon").reason
    folder = study(tmp_path / "b", TWO, run_changes={"Adam": {"epochs": 80}})
    assert "Adam was reported for 80 epochs" in refused(folder, "horizon").reason


def test_different_budgets(tmp_path: Path) -> None:
    algorithms = [algorithm("Adam"), algorithm("SGD", budget=2)]
    folder = study(tmp_path, TWO, algorithms=algorithms, tuning_values={"SGD": (0.5, 0.7)})
    refusal = refused(folder, "budget")
    assert "4 trials" in refusal.reason
    assert "SGD with 2" in refusal.reason
    tables = suggested(refusal)["algorithms"]
    assert [(a["budget"], a["sampler"]) for a in tables] == [(4, "grid")] * 2


def test_a_grid_of_several_dimensions_takes_another_budget_by_another_sampler() -> None:
    grid = {"lr": {"low": 0.1, "high": 1.0, "log": True, "points": 2}, "m": {"choice": [0, 0.9]}}
    declaration = {
        "tuning": {"seeds": [0], "select": "valid_loss"},
        "algorithms": [algorithm("SGD", space=grid)],
        "seeds": [1, 2],
        "epochs": {"p": 3},
        "batch_sizes": {"p": 8},
        "metric": {"p": "loss"},
        "level": 0.05,
    }
    text = {
        budget: study_toml(
            declaration, name="a b", question='"?"', problem="p", labels=["SGD"], budget=budget
        )
        for budget in (4, 16)
    }
    same, more = (tomllib.loads(t)["algorithms"][0] for t in text.values())
    assert (same["sampler"], same["budget"], same["space"]) == ("grid", 4, grid)
    assert (more["sampler"], more["budget"]) == ("qmc", 16)
    assert "points" not in more["space"]["lr"]
    top = tomllib.loads(text[4])
    assert (top["name"], top["question"]) == ("a-b", '"?"')


def test_an_untuned_algorithm_is_the_same_at_any_budget(tmp_path: Path) -> None:
    untuned = algorithm("SGD", space={}, fixed={"lr": 1e-3}, sampler="none", budget=1)
    found = only(study(tmp_path, TWO, algorithms=[algorithm("Adam"), untuned]))
    assert isinstance(found, Claim)
    assert found.b_name == "SGD(lr=0.001; untuned)"


def test_one_seed(tmp_path: Path) -> None:
    refusal = refused(study(tmp_path, {"Adam": (0.9,), "SGD": (0.8,)}, seeds=(7,)), "seeds")
    assert "one run shows nothing" in refusal.reason
    seeds = suggested(refusal)["seeds"]
    assert len(set(seeds)) == 10
    assert seeds[0] == 7
    assert 0 not in seeds  # the tuning's


def test_selection_by_the_test_set(tmp_path: Path) -> None:
    tuning = {"seeds": [0], "select": "test_accuracy"}
    refusal = refused(study(tmp_path / "a", TWO, tuning=tuning), "test metric")
    assert suggested(refusal)["tuning"]["select"] == "valid_accuracy"
    stopping = {"metric": "test_loss", "patience": 3}
    algorithms = [algorithm("Adam", early_stopping=stopping), algorithm("SGD")]
    refusal = refused(study(tmp_path / "b", TWO, algorithms=algorithms), "test metric")
    table = suggested(refusal)["algorithms"][0]
    assert table["early_stopping"] == {"metric": "valid_loss", "patience": 3}


def test_mixed_versions_of_the_problem(tmp_path: Path) -> None:
    folder = study(tmp_path / "a", TWO, run_changes={"Adam": {"problem_version": 2}})
    assert "versions 1 (schema 1) and 2 (schema 1)" in refused(folder, "problem version").reason
    folder = study(tmp_path / "b", TWO, tuning_changes={"SGD": {"schema": 2}})
    refused(folder, "problem version")


def test_mixed_versions_of_an_optimizer(tmp_path: Path) -> None:
    folder = study(tmp_path / "e", TWO, tuning_changes={"SGD": {"optimizer_code": "5d41402abc4b"}})
    assert "was edited between the runs of SGD" in refused(folder, "optimizer version").reason
    folder = study(tmp_path / "a", TWO, tuning_changes={"SGD": {"optimizer_version": 2}})
    assert "versions [1, 2]" in refused(folder, "optimizer version").reason


def test_imported_runs_enter_no_claim(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO, run_changes={"SGD": {"imported": "DeepOBS 1.1"}})
    refused(folder, "imported")


def test_seeds_that_both_tune_and_report(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO, tuning_changes={"SGD": {"seed": 101}})
    refusal = refused(folder, "shared seeds")
    assert "[101]" in refusal.reason
    assert not set(suggested(refusal)["seeds"]) & {0, 101}


def test_runs_that_do_not_share_batches(tmp_path: Path) -> None:
    refused(study(tmp_path / "a", TWO, run_changes={"SGD": {"batch_size": 64}}), "not paired")
    refused(study(tmp_path / "b", TWO, run_changes={"SGD": {"device": "cuda"}}), "not paired")


def test_an_unfinished_study_is_asked_to_finish(tmp_path: Path) -> None:
    folder = study(tmp_path / "a", TWO)
    gone = next(e for e in folder.ledger() if e.role == "reporting")
    shutil.rmtree(folder.store.path(gone.trial_hash))
    refusal = refused(folder, "unfinished")
    assert "1 trial of Adam and SGD" in refusal.reason
    assert refusal.study_that_would_answer is None
    # Before tuning is done, neither the rest of it nor the reporting runs are planned.
    entries = folder.ledger()
    folder.write_ledger([e for e in entries if e.role == "tuning" and e.index < 3])
    assert "12 trials" in refused(folder, "unfinished").reason  # 1 + 5 of each algorithm


def test_an_interrupted_run_is_no_outcome(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO)
    entry = next(e for e in folder.ledger() if e.role == "reporting")
    kept = folder.store.read(entry.trial_hash)
    assert isinstance(kept, Run)
    shutil.rmtree(folder.store.path(entry.trial_hash))
    folder.store.write(replace(kept, status=Status.INTERRUPTED))
    refused(folder, "unfinished")
    shutil.rmtree(folder.store.path(entry.trial_hash))
    folder.store.write(replace(kept, status=Status.CRASHED))
    found = only(folder)
    assert isinstance(found, Claim)
    assert found.comparison.diverged_a == 1


def test_a_damaged_record_is_no_outcome(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO)
    entry = next(e for e in folder.ledger() if e.role == "reporting")
    (folder.store.path(entry.trial_hash) / "run.json").write_text("{}")
    refused(folder, "unfinished")


def test_labels_must_differ(tmp_path: Path) -> None:
    twice = [algorithm("Adam"), algorithm("Adam", space={"lr": {"choice": [0.1]}})]
    with pytest.raises(StoreError, match="two algorithms are labelled 'Adam'"):
        study_claims(study(tmp_path, TWO, algorithms=twice))


def test_a_metric_chosen_afterwards(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO)
    assert isinstance(claim("adam better than sgd in accuracy", folder), Claim)
    refusal = claim("adam better than sgd in loss", folder)
    assert isinstance(refusal, Refusal)
    assert suggested(refusal)["metric"] == {PROBLEM: "loss"}
    assert suggested(refusal)["seeds"] == [105, 106, 107, 108, 109]  # the others are known


def test_a_suggested_study_mends_everything_at_once(tmp_path: Path) -> None:
    folder = study(
        tmp_path,
        {"Adam": (0.9,), "SGD": (0.8,)},
        algorithms=[algorithm("Adam"), algorithm("SGD", budget=2)],
        tuning={"seeds": [7], "select": "test_loss"},
        seeds=(7,),
    )
    refusal = claim("adam better than sgd at 80 epochs", folder)
    assert isinstance(refusal, Refusal)
    answer = suggested(refusal)
    assert answer["epochs"] == 80
    assert len(set(answer["seeds"])) == 10
    assert 7 not in answer["seeds"]
    assert answer["tuning"] == {"seeds": [7], "select": "valid_loss"}
    assert {a["budget"] for a in answer["algorithms"]} == {4}


def test_the_suggested_study_can_be_run(tmp_path: Path) -> None:
    from optiscope.study import load_study

    space = {"lr": {"low": 1e-3, "high": 1.0, "log": True}}
    schedule, stopping = (
        {"name": "linear_decay", "final": 0.0},
        {"metric": "valid_loss", "patience": 2},
    )
    tuned = algorithm("wide", optimizer="sgd", space=space, schedule=schedule)
    fixed = algorithm("Adam", optimizer="adam", space={}, sampler="none", budget=1,
                      fixed={"lr": 1e-3}, early_stopping=stopping, colour="#112233")  # fmt: skip
    folder = study(
        tmp_path,
        {"wide": SGD, "Adam": ADAM},
        algorithms=[tuned, fixed],
        problems=("digits_logreg",),
        equivalence_margin=0.01,
        threads=1,
        device="cpu",
        max_seconds=60.0,
        until_decided=None,
    )
    refusal = claim("wide better than adam at 7 epochs", folder)
    assert isinstance(refusal, Refusal)
    assert refusal.study_that_would_answer is not None
    file = tmp_path / "suggested.toml"
    file.write_text(refusal.study_that_would_answer)
    loaded = load_study(file)
    assert loaded.epochs == {"digits_logreg": 7}
    assert loaded.equivalence_margin == 0.01
    assert loaded.seeds == SEEDS
    first, second = loaded.algorithms
    assert (first.label, first.optimizer, first.budget, first.schedule) == (
        "wide", "sgd", 4, schedule
    )  # fmt: skip
    assert (second.tuned, second.fixed) == (False, {"lr": 1e-3})
    assert second.recipe.early_stopping == stopping


def test_one_algorithm_alone_supports_nothing(tmp_path: Path) -> None:
    alone = study(tmp_path, {"Adam": ADAM}, until_decided={"stages": [5, 8]})
    assert study_claims(alone) == []
    assert next_seed_count(alone) is None


# --- until decided ------------------------------------------------------------------------------


def staged(path: Path, values: dict[str, tuple[float, ...]]) -> Any:
    count = len(next(iter(values.values())))
    return study(
        path, values, seeds=tuple(range(100, 100 + count)), until_decided={"stages": [3, 5, 8]}
    )


def test_seeds_are_added_until_decided(tmp_path: Path) -> None:
    clear, unclear = (
        staged(tmp_path / "a", TWO),
        staged(tmp_path / "b", {"Adam": ADAM, "SGD": ADAM[::-1]}),
    )
    found = only(clear)
    assert isinstance(found, Claim)
    assert found.verdict is Verdict.BETTER
    assert found.stages == (3, 5, 8)
    assert found.comparison.pairs in (3, 5)
    assert next_seed_count(clear) is None
    assert next_seed_count(unclear) == 8
    assert only(unclear).verdict is Verdict.UNDECIDED  # type: ignore[union-attr]


def test_no_verdict_before_the_first_stage(tmp_path: Path) -> None:
    folder = staged(tmp_path, {"Adam": ADAM[:2], "SGD": SGD[:2]})
    assert "looks first at 3 seeds" in refused(folder, "unfinished").reason
    assert next_seed_count(folder) == 3
    assert next_seed_count(study(tmp_path / "plain", TWO)) is None


# --- documentation ------------------------------------------------------------------------------


def test_the_documented_example_is_what_the_product_says(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "claims.md"
    text = page.read_text(encoding="utf-8")
    words = " ".join(text.split())
    folder = crossing_curves(tmp_path)
    granted = claim("sgd better than adam on fmnist_2c2d", folder)
    refusal = claim("adam better than sgd on fmnist_2c2d at 80 epochs", folder)
    assert isinstance(granted, Claim)
    assert isinstance(refusal, Refusal)
    assert granted.sentence in words
    assert refusal.reason in words
    assert f"```toml\n{refusal.study_that_would_answer}```" in text


def test_a_metric_that_was_not_measured_is_unknown(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO)
    with pytest.raises(QuestionError, match="reports no perplexity"):
        claim("Adam better than SGD in perplexity", folder)
    refusal = claim("Adam better than SGD in loss", folder)
    assert isinstance(refusal, Refusal)
    assert refusal.rule == "metric"


def test_a_suggested_study_names_problems_as_the_study_did(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO, paths={PROBLEM: "mine.problems:it"})
    text = study_toml(
        folder.declaration(), name="n", question="?", problem=PROBLEM, labels=["Adam", "SGD"]
    )
    assert tomllib.loads(text)["problems"] == ["mine.problems:it"]


def test_the_budget_counts_different_settings(tmp_path: Path) -> None:
    choice = {"lr": {"choice": [1e-5, 1e-4]}}
    algorithms = [
        algorithm("Adam", space=choice, sampler="tpe"),
        algorithm("SGD", sampler="tpe"),
    ]
    folder = study(tmp_path / "unequal", TWO, algorithms=algorithms)
    ledger = [
        replace(e, hyperparameters={"lr": (1e-5, 1e-4)[e.index % 2]})
        if (e.role, e.algorithm) == ("tuning", "Adam")
        else e
        for e in folder.ledger()
    ]
    by_point = {e.hyperparameters["lr"]: e.trial_hash for e in folder.ledger()
                if (e.role, e.algorithm) == ("tuning", "Adam")}  # fmt: skip
    folder.write_ledger(
        [replace(e, trial_hash=by_point[e.hyperparameters["lr"]])
         if (e.role, e.algorithm) == ("tuning", "Adam") else e for e in ledger]
    )  # fmt: skip
    answer = refused(folder, "budget")
    assert "of 4 proposals on fmnist_2c2d each, the different settings were 2 for Adam" in (
        answer.reason
    )
    tables = suggested(answer)["algorithms"]
    assert [(t["budget"], t["sampler"]) for t in tables] == [(2, "grid"), (2, "tpe")]
    summary = {s.algorithm: s for s in tuning_summaries(read_study(folder))}
    assert (summary["Adam"].budget, summary["Adam"].proposals) == (2, 4)
    assert len(summary["Adam"].expected or ()) == 2
    assert (summary["SGD"].budget, summary["SGD"].proposals) == (4, 4)


def test_an_algorithm_whose_every_run_crashed_did_not_run(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO | {"Boom": ADAM})
    entries = [e for e in folder.ledger() if (e.algorithm, e.role) == ("Boom", "tuning")]
    for entry in entries:
        made = folder.store.read(entry.trial_hash)
        assert isinstance(made, Run)
        shutil.rmtree(folder.store.path(entry.trial_hash))
        reason = "ValueError: boom in step (boom.py:93)"
        folder.store.write(replace(made, status=Status.CRASHED, reason=reason))
    folder.write_ledger(
        [e for e in folder.ledger() if (e.algorithm, e.role) != ("Boom", "reporting")]
    )
    answers = {(x.a, x.b): x for x in study_claims(folder)}
    for pair in (("Adam", "Boom"), ("SGD", "Boom")):
        refusal = answers[pair]
        assert isinstance(refusal, Refusal)
        assert refusal.rule == "did not run"
        assert "Boom did not run on fmnist_2c2d: all of its 4 tuning trials crashed" in (
            refusal.reason
        )
        assert "boom in step (boom.py:93)" in refusal.reason
    sound = answers["Adam", "SGD"]
    assert isinstance(sound, Claim)
    assert (sound.verdict, sound.family) == (Verdict.BETTER, 1)


def test_a_label_may_be_asked_for_without_its_default_hyperparameters(tmp_path: Path) -> None:
    label = "Lion (default hyperparameters)"
    plain = algorithm(label, space={}, fixed={}, sampler="none", budget=0, tune="none")
    folder = study(tmp_path, {"Adam": ADAM, label: SGD}, algorithms=[algorithm("Adam"), plain])
    for question in ("adam better than lion", f"adam better than {label} on fmnist_2c2d"):
        found = claim(question, folder)
        assert isinstance(found, Claim)
        assert found.supported
        assert found.sentence.startswith(f"Adam is better than {label} on")


@pytest.mark.parametrize("role", ["tuning", "reporting"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 77}, "seed 77, its record has seed"),
        ({"hyperparameters": {"lr": 0.5}}, "hyperparameters"),
    ],
)
def test_a_ledger_that_was_edited_supports_nothing(
    tmp_path: Path, role: str, changes: dict[str, Any], words: str
) -> None:
    folder = study(tmp_path, TWO)
    entries = folder.ledger()
    place = next(i for i, e in enumerate(entries) if (e.role, e.algorithm) == (role, "SGD"))
    entries[place] = replace(entries[place], **changes)
    folder.write_ledger(entries)  # with a digest that is right
    refusal = refused(folder, "inconsistent")
    assert words in refusal.reason
    assert refusal.study_that_would_answer is None


def test_an_entry_may_not_name_the_record_of_another_seed(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO)
    entries = folder.ledger()
    one, other = (i for i, e in enumerate(entries) if (e.role, e.algorithm) == ("reporting", "SGD")
                  and e.seed in (100, 101))  # fmt: skip
    entries[one] = replace(entries[one], trial_hash=entries[other].trial_hash)
    folder.write_ledger(entries)
    assert "its record has seed 101" in refused(folder, "inconsistent").reason


def test_reporting_runs_must_have_a_setting_that_was_tried(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO)
    entries = [e for e in folder.ledger() if (e.role, e.algorithm) != ("reporting", "SGD")]
    for seed in SEEDS:
        made = run("SGD", PROBLEM, seed, {"lr": 0.5}, [0.1, 0.99])
        folder.store.write(made)
        entries.append(planned(made, "SGD", "reporting", -1))
    folder.write_ledger(entries)
    assert "settings that its tuning did not choose" in refused(folder, "inconsistent").reason


def test_declared_comparisons_are_the_family(tmp_path: Path) -> None:
    values = TWO | {"Lark": tuple(x + 0.001 for x in ADAM[::-1])}
    folder = study(tmp_path / "baseline", values, compare="baseline")
    answers = study_claims(folder)
    assert [(x.a, x.b) for x in answers] == [("Adam", "SGD"), ("Adam", "Lark")]
    assert all(isinstance(x, Claim) and x.family == 2 for x in answers)
    refusal = claim("lark better than sgd", folder)
    assert isinstance(refusal, Refusal)
    assert refusal.rule == "family"
    assert suggested(refusal)["compare"] == "all"
    leader = study(tmp_path / "leader", values, compare="leader")
    answers = study_claims(leader)
    assert [(x.a, x.b) for x in answers] == [("Adam", "Lark"), ("SGD", "Lark")]
    assert all(isinstance(x, Claim) and x.family == 3 for x in answers)
    other = claim("adam better than sgd", leader)
    assert isinstance(other, Claim)
    assert other.family == 3


@pytest.mark.parametrize(
    ("of", "gap", "flagged"),
    [(300, 2, "2 of 300 test samples"), (300, 5, None), (10_000, 4, "4 of 10000 test samples")],
)
def test_a_difference_of_a_handful_of_test_samples_is_flagged(
    of: int, gap: int, flagged: str | None, tmp_path: Path
) -> None:
    a = [(of - 20 - k) / of for k in range(8)]
    values = {"A": a, "B": [value - gap / of for value in a]}
    folder = study(tmp_path / "s", values, seeds=range(100, 108))
    found = claim("A better than B", folder)
    assert isinstance(found, Claim)
    assert found.samples == of
    assert found.difference_in_samples == pytest.approx(gap)
    assert found.few_samples == flagged
    assert ("other samples may well reverse it" in found.sentence) == (flagged is not None)
    assert found.to_dict()["test_samples"] == of


def test_what_is_no_share_of_samples_flags_nothing() -> None:
    from optiscope.stats.sample_count import sample_count

    assert sample_count([0.9, 0.8, 0.85]) is None  # rounded numbers
    assert sample_count([math.pi / 4, 0.5]) is None
    assert sample_count([math.nan, 359 / 360, 1 / 360]) == 360
    assert sample_count([49_999 / 50_000]) == 50_000
    assert sample_count([]) is None
