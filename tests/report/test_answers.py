import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from optiscope.report.answers import Answer, answer, effect_text, lead_text
from optiscope.stats.claims import Claim
from optiscope.stats.comparison import Assumption, paired_comparison
from optiscope.stats.refusal import Refusal
from optiscope.stats.summary import Result

NOISE = np.array([0.0, 0.001, -0.001, 0.002, -0.002])


def _result(label: str, values: np.ndarray, metric: str) -> Result:
    finite = values[np.isfinite(values)]
    failed = len(values) - len(finite)
    return Result(
        problem="p",
        algorithm=label,
        metric=metric,
        values={k: float(v) for k, v in enumerate(values) if math.isfinite(v)},
        planned=len(values),
        failed={"diverged": failed} if failed else {},
        mean=float(finite.mean()) if len(finite) else math.nan,
        deviation=math.nan,
        interval=(math.nan, math.nan),
        hyperparameters={},
        imported=False,
    )


def _answer(
    values: dict[str, np.ndarray],
    metric: str = "accuracy",
    margin: float | None = None,
    assumption: Assumption = "normal",
) -> Answer:
    results = [_result(label, v, metric) for label, v in values.items()]
    claims = []
    for a, b in combinations(values, 2):
        comparison = paired_comparison(
            values[a].tolist(),
            values[b].tolist(),
            margin=margin,
            higher_is_better=metric != "loss",
            assumption=assumption,
        )
        claims.append(Claim("p", metric, 10, a, b, a, b, comparison, 1, 0.05, "one comparison"))
    return answer("p", results, claims)


def test_a_certain_winner_with_its_lead_over_the_closest() -> None:
    found = _answer({"a": 0.80 + NOISE, "b": 0.90 + NOISE[::-1], "c": 0.85 + NOISE})
    assert (found.leader, found.certain) == ("b", True)
    assert found.text.startswith(
        "b wins with a mean test accuracy of 90.00 %: significantly better"
    )
    assert "closest of them c: ahead by 5.00 points (95 % interval " in found.text
    assert found.standings["a"].word == "worse"
    assert found.standings["b"].word == "leader"


def test_two_algorithms_name_the_loser() -> None:
    found = _answer({"a": 0.80 + NOISE, "b": 0.90 + NOISE[::-1]})
    assert "significantly better than a by 10.00 points" in found.text


def test_a_lower_loss_wins_and_its_lead_is_positive() -> None:
    found = _answer({"a": 0.5 + NOISE, "b": 0.4 + NOISE[::-1]}, metric="loss")
    assert (found.leader, found.certain) == ("b", True)
    assert found.standings["a"].text.startswith("+0.1")


def test_undecided_says_how_many_seeds_would_decide() -> None:
    found = _answer({"a": 0.800 + NOISE, "b": 0.801 - NOISE})
    assert not found.certain
    assert "b has the best mean test accuracy, 80.10 %; undecided against a (about" in found.text
    assert "more seeds would decide)" in found.text


def test_too_few_seeds_and_too_close_are_different_words() -> None:
    values = {"a": 0.80 + NOISE, "b": 0.90 + NOISE[::-1], "c": 0.85 + NOISE}
    found = _answer(values, assumption="symmetric")
    assert not found.certain
    words = (
        "undecided against a and c (ahead of a and c on every seed, but 5 seeds are too few to "
        "decide anything: at least 6 are needed)"
    )
    assert words in found.text
    even = np.tile([0.001, -0.001], 5)
    close = _answer({"a": 0.8 + even + 1e-8, "b": np.full(10, 0.8)}, assumption="symmetric")
    assert "undecided against b (too close: even 1000 seeds would not decide)" in close.text


def test_within_the_margin_is_equal() -> None:
    found = _answer({"a": 0.8 + NOISE, "b": 0.8 + NOISE[::-1]}, margin=0.02)
    assert not found.certain
    assert "equal to b within 2.00 points" in found.text
    assert found.standings["b"].word == "equivalent"


def test_an_algorithm_with_a_failed_run_does_not_lead() -> None:
    diverging = 0.95 + NOISE
    diverging[2] = math.nan
    found = _answer({"a": 0.80 + NOISE, "b": diverging})
    assert found.leader == "a"
    assert not found.certain
    assert found.standings["b"].text == "won 1, lost 4 of 5 seeds"


def test_where_all_have_failures_the_best_of_the_rest_leads() -> None:
    x, y = 0.8 + NOISE, 0.9 + NOISE
    x[0] = y[1] = math.nan
    assert _answer({"a": x, "b": y}).leader == "b"
    nothing = np.full(5, math.nan)
    assert _answer({"a": nothing, "b": nothing}).text == "No run has reached its end."


def test_alone_there_is_nothing_to_compare() -> None:
    found = _answer({"a": 0.8 + NOISE})
    assert (
        found.text == "a reaches a test accuracy of 80.00 %; there is nothing to compare it with."
    )
    assert not found.certain


def test_a_refusal_is_said_with_its_reason() -> None:
    results = [_result("a", 0.8 + NOISE, "accuracy"), _result("b", 0.7 + NOISE, "accuracy")]
    refusal = Refusal("p", "a", "b", "budget", "a had 8 trials, b had 16.", None)
    found = answer("p", results, [refusal])
    assert "not comparable with b: a had 8 trials, b had 16." in found.text
    assert found.standings["b"].word == "refused"


def test_long_lists_are_counted() -> None:
    values = {f"a{k}": 0.8 + k * 1e-4 + NOISE[np.r_[k % 5 : 5, : k % 5]] for k in range(8)}
    assert "against 7 others" in _answer(values).text


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_effects_keep_their_sign_and_leads_turn_it(metric: str) -> None:
    c = paired_comparison(
        (0.5 + NOISE).tolist(), (0.6 - NOISE).tolist(), higher_is_better=metric != "loss"
    )
    assert effect_text(c, metric).startswith("−")
    assert lead_text(c, metric).startswith("+" if metric == "loss" else "−")
    won = "won 5, lost 0" if metric == "loss" else "won 0, lost 5"
    assert lead_text(replace(c, difference=None), metric) == f"{won} of 5 seeds"


def test_a_zero_has_no_sign() -> None:
    found = _answer({"a": 0.8 + NOISE, "b": 0.8 + NOISE})
    assert found.standings["b" if found.leader == "a" else "a"].text.startswith("0.00 points")


def test_labels_with_commas_are_listed_apart() -> None:
    values = {name: 0.8 + shift + NOISE for name, shift in {"a": 0.1, "b, x": 0, "c, x": 0}.items()}
    found = _answer(values, assumption="symmetric")
    assert "undecided against b, x and c, x" in found.text
    four = _answer(values | {"d": 0.8 + NOISE}, assumption="symmetric")
    assert "undecided against b, x; c, x and d" in four.text
