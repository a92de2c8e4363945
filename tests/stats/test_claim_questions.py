"""Questions as people ask them: what they are read as, and how they are answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from optiscope.stats.claim_question import QuestionError, parse_question
from optiscope.stats.claims import Claim, claim
from optiscope.stats.comparison import Verdict, paired_comparison
from stats.small_study import ADAM, SGD, TWO, study


def test_questions_are_answered_as_asked(tmp_path: Path) -> None:
    folder = study(tmp_path, TWO)
    for text, supported in [
        ("adam better than sgd", True),
        ("Adam is worse than SGD on fmnist_2c2d at 100 epochs?", False),
        ("sgd worse than adam after 100 epochs", True),
        ("sgd equals adam within 2.5%", True),
        ("sgd is equivalent to adam within 0.001", False),
    ]:
        found = claim(text, folder)
        assert isinstance(found, Claim)
        assert found.supported is supported, text
    flipped = claim("sgd worse than adam", folder)
    assert isinstance(flipped, Claim)
    assert (flipped.a, flipped.b) == ("SGD", "Adam")
    assert flipped.comparison == paired_comparison(
        SGD, ADAM, higher_is_better=True, assumption="normal"
    )
    assert flipped.a_name.startswith("SGD(")


def test_equality_that_is_not_shown_is_answered_as_asked(tmp_path: Path) -> None:
    folder = study(tmp_path, {"Adam": ADAM, "SGD": ADAM[::-1]})
    found = claim("adam equals sgd within 0.0001", folder)
    assert isinstance(found, Claim)
    assert found.supported is None
    assert found.sentence.startswith("not shown that Adam equals SGD on fmnist_2c2d")
    assert "within 0.0001: " in found.sentence
    assert (
        f"two one-sided t tests, p = {found.comparison.equivalence_p_value:.2g}" in found.sentence
    )


def test_undecided_is_neither_yes_nor_no(tmp_path: Path) -> None:
    found = claim("adam better than sgd", study(tmp_path, {"Adam": ADAM, "SGD": ADAM[::-1]}))
    assert isinstance(found, Claim)
    assert found.supported is None


def test_a_difference_alone_does_not_deny_equality(tmp_path: Path) -> None:
    # SGD - Adam is about -0.0132 with an interval about [-0.0164, -0.0100].
    folder = study(tmp_path, TWO)
    unsure = claim("adam equals sgd within 0.014", folder)
    assert isinstance(unsure, Claim)
    assert unsure.verdict is Verdict.BETTER
    assert (unsure.supported, unsure.answer) == (None, "undecided")
    assert "; whether by less than 0.014 is undecided: " in unsure.sentence
    denied = claim("adam equals sgd within 0.005", folder)
    assert isinstance(denied, Claim)
    assert (denied.supported, denied.answer) == (False, "no")


def test_a_problem_of_ones_own_goes_by_name_or_import_path() -> None:
    for name in ("cancer", "my_data:cancer", "Cancer"):
        words = f"a better than b on {name} in loss"
        found = parse_question(words, labels=["a", "b"], problems=["cancer", "digits_mlp"])
        assert (found.problem, found.metric) == ("cancer", "loss")


def test_too_few_seeds_state_the_difference_as_one_of_means(tmp_path: Path) -> None:
    adam, lion = (0.9833, 0.98, 0.98, 0.9767, 0.98), (0.9467, 0.97, 0.9667, 0.94, 0.9633)
    folder = study(tmp_path, {"Adam": adam, "Lion": lion}, assumption="symmetric")
    found = claim("adam better than lion", folder)
    assert isinstance(found, Claim)
    assert found.comparison.interval is None
    assert "every pair differs" not in found.sentence
    assert "difference 0.02266" in found.sentence
    assert "at least 6 are needed, about 7 would do" in found.sentence


@pytest.mark.parametrize("words", ["beats", ">", "vs", "vs.", "is better than", "versus"])
def test_everyday_words_ask_the_same(tmp_path: Path, words: str) -> None:
    folder = study(tmp_path, TWO)
    asked = claim(f"adam {words} sgd", folder)
    assert asked == claim("adam better than sgd", folder)
    assert claim("adam < sgd", folder) == claim("adam worse than sgd", folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adma better than sgd", "unknown algorithm 'adma': did you mean 'Adam'"),
        ("lion better than sgd", "unknown algorithm 'lion': this study has Adam, SGD"),
        ("adam better than sgd on fmnist_2c2", "unknown problem 'fmnist_2c2': did you mean"),
        ("adam outdoes sgd", "expected 'A better than B'"),
        ("adam better than sgd by 0.01", "cannot read 'by 0.01': expected 'A better than B'"),
        ("adam better than sgd by 0.01 on fmnist_2c2d", "cannot read 'by 0.01'"),
        ("adam better than sgd significantly", "cannot read 'significantly'"),
        ("adam better than sgd at noon", "expected a horizon"),
        ("adam better than sgd at " + "9" * 5000, "expected a horizon"),
        ("adam better than sgd at 0 epochs", "expected a horizon"),
        ("adam better than sgd in no time", "expected 'in accuracy' or 'in loss'"),
        ("adam better than sgd in seconds", "reports no seconds: leave it out, or say accuracy"),
        ("adam equals sgd within reason", "expected a margin"),
        ("adam better than adam", "stands on both sides"),
        ("adam better than sgd at 5 epochs at 6 epochs", "stands twice"),
        ("adam equals sgd", "no two optimizers are exactly equal"),
    ],
)
def test_questions_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(QuestionError, match=message) as error:
        claim(text, study(tmp_path, TWO))
    assert "\n" not in str(error.value)


def test_names_with_spaces_and_several_problems() -> None:
    found = parse_question(
        "Adam wide worse than Adam on p2 in test accuracy within 0.01 after 3 epochs",
        labels=["Adam", "Adam wide"],
        problems=["p1", "p2"],
    )
    assert (found.a, found.b, found.problem) == ("Adam wide", "Adam", "p2")
    assert (found.epochs, found.metric, found.margin) == (3, "accuracy", 0.01)
    with pytest.raises(QuestionError, match="several problems: add 'on p1'"):
        parse_question("a worse than b", labels=["a", "b"], problems=["p1", "p2"])
    with pytest.raises(QuestionError, match="mind upper and lower case"):
        parse_question("sGd worse than b", labels=["SGD", "sgd", "b"], problems=["p1"])


def test_labels_may_hold_the_words_of_a_question() -> None:
    labels = ["Lark", "SGD", "SGD on cosine", "S.G.D."]
    for label in labels[1:]:
        asked = parse_question(
            f"Lark better than {label} on mine at 8 epochs?", labels=labels, problems=["mine"]
        )
        assert (asked.b, asked.problem, asked.epochs) == (label, "mine", 8)
        asked = parse_question(f"Lark better than {label}.", labels=labels, problems=["mine"])
        assert asked.b == label


AWKWARD = [
    "Adam",
    "SGD better than nothing",
    "my lr equals 0.1",
    "worse than SGD",
    "A is better than B",
    "Lion  wide?",
    "B",
    "A",
]


@pytest.mark.parametrize("a", AWKWARD)
@pytest.mark.parametrize("b", AWKWARD)
@pytest.mark.parametrize(
    ("verb", "rest"), [("better than", ""), ("is worse than", " on p at 3 epochs"), ("equals", "?")]
)
def test_labels_may_hold_the_verb_of_a_question(a: str, b: str, verb: str, rest: str) -> None:
    if a == b:
        return
    text = f"{a} {verb} {b}{rest}"
    for written in (text, text.lower()):
        asked = parse_question(written, labels=AWKWARD, problems=["p"])
        assert (asked.a, asked.b) == (a, b)


def test_a_question_with_two_readings_says_so() -> None:
    labels = ["A", "A better than B", "B better than C", "C"]
    with pytest.raises(QuestionError, match="can be read as 'A' better than 'B better than C' or"):
        parse_question("A better than B better than C", labels=labels, problems=["p"])


@pytest.mark.parametrize("margin", ["1e999", "0", "9e400%"])
def test_margins_that_cannot_be(margin: str) -> None:
    with pytest.raises(QuestionError, match="expected a margin"):
        parse_question(f"a equals b within {margin}", labels=["a", "b"], problems=["p"])
