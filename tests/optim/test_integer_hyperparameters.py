"""A hyperparameter that is an integer takes integers, wherever it is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.optim import SGD, Optimizer

from optiscope.optim import registry
from optiscope.optim.registry import BadSettingsError, bind, takes_integers
from optiscope.optim.spec import Choice, OptimizerSpec, Range
from optiscope.study import StudyError, load_study
from optiscope.study.study import Algorithm
from optiscope.study.tuning import Tuning


class Counting(SGD):
    """Integers in every way in which signatures say so."""

    def __init__(
        self,
        params: Any,
        lr: float = 1,
        k: int = 5,
        warmup_steps=0,  # type: ignore[no-untyped-def]
        every=10,
        limit: int | None = None,
        momentum=0,
        decay: "float" = 2,  # noqa: UP037
        nesterov: bool = False,
    ) -> None:
        self.k, self.warmup_steps, self.every, self.limit = k, warmup_steps, every, limit
        super().__init__(params, lr=lr, momentum=momentum, nesterov=nesterov)


class Passing(Counting):
    """Passes on what it does not know itself."""

    def __init__(self, params: Any, *args: Any, order: int = 2, **settings: Any) -> None:
        super().__init__(params, *args, **settings)


INTEGERS = ["k", "warmup_steps", "every", "limit"]


def test_signatures_say_which_are_integers() -> None:
    for cls, more in ((Counting, []), (Passing, ["order"])):
        spec = OptimizerSpec("mine", cls)
        names = ["lr", *INTEGERS, "momentum", "decay", "nesterov", "order", "nothing"]
        assert [n for n in names if takes_integers(spec, n)] == INTEGERS + more


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("cls", [Counting, Passing])
def test_fractions_are_refused(name: str, cls: type[Optimizer]) -> None:
    with pytest.raises(BadSettingsError, match=f"{name} of .* must be an integer, got 7.5"):
        bind(cls, {name: 7.5})
    optimizer = bind(cls, {name: 8.0}).on_probe()
    value = getattr(optimizer, name)
    assert (value, type(value)) == (8, int)


def test_numbers_that_are_no_integers_stay() -> None:
    bound = bind(Counting, {"lr": 0.5, "momentum": 0.9, "decay": 2.5})
    assert bound.on_probe().param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        ("torch.optim:LBFGS", "max_iter"),
        ("torch.optim:LBFGS", "history_size"),
        ("torch.optim:LBFGS", "max_eval"),
        ("lark", "rank"),
        ("preconditioned_sgd", "est_rank"),
        ("preconditioned_tuned_momentum", "num_observations"),
    ],
)
def test_integers_of_known_optimizers(optimizer: str, name: str) -> None:
    with pytest.raises(BadSettingsError, match=f"{name}.* integer"):
        bind(optimizer, {name: 7.5})
    assert takes_integers(registry.get(optimizer), name)


def test_soap_refuses_a_fraction() -> None:
    pytest.importorskip("pytorch_optimizer")
    with pytest.raises(BadSettingsError, match="precondition_frequency of soap must be an int"):
        bind("soap", {"precondition_frequency": 7.5})


STUDY = """\
name = "integers"
question = "?"
problems = ["digits_logreg"]
seeds = [1, 2]
[tuning]
budget = 4
sampler = "SAMPLER"
[[algorithms]]
optimizer = "lark"
label = "L"
WORDS
"""


def declared(tmp_path: Path, words: str, sampler: str = "random") -> Any:
    file = tmp_path / "study.toml"
    file.write_text(STUDY.replace("WORDS", words).replace("SAMPLER", sampler))
    return load_study(file)


@pytest.mark.parametrize(
    "words",
    [
        "fixed = { rank = 7.5 }",
        "space.rank = { choice = [4, 7.5, 64] }",
        "space.rank = { low = 4.5, high = 64 }",
    ],
)
def test_studies_refuse_fractions_with_the_line(tmp_path: Path, words: str) -> None:
    with pytest.raises(StudyError, match=r"line 11: .*rank.*integer"):
        declared(tmp_path, words)


@pytest.mark.parametrize("sampler", ["random", "tpe", "qmc", "grid"])
@pytest.mark.parametrize("words", ["low = 4, high = 64", "low = 0, high = 3, log = false"])
def test_a_range_of_integers_proposes_integers(tmp_path: Path, sampler: str, words: str) -> None:
    study = declared(tmp_path, f"space.rank = {{ {words} }}", sampler)
    (algorithm,) = study.algorithms
    assert algorithm.to_dict()["space"]["rank"]["integer"] is True
    tuning = Tuning(algorithm, ["w"], lower_is_better=True)
    low, high = algorithm.space["rank"].low, algorithm.space["rank"].high
    points = []
    while (proposal := tuning.ask()) is not None:
        tuning.tell(proposal[0], [float(proposal[1]["rank"])])
        points.append(proposal[1]["rank"])
    assert all(type(point) is int and low <= point <= high for point in points)
    assert tuning.done
    if sampler == "grid":
        assert points == [low, *points[1:-1], high]
        assert len(set(points)) == len(points) == algorithm.budget


def test_a_grid_takes_every_integer_once(tmp_path: Path) -> None:
    study = declared(
        tmp_path, "space.rank = { low = 1, high = 3, log = false, points = 9 }", "grid"
    )
    (algorithm,) = study.algorithms
    assert algorithm.budget == 3
    assert algorithm.space["rank"].grid(9) == [1, 2, 3]


def test_ranges_of_integers_reach_both_ends() -> None:
    for log in (False, True):
        values = [Range(1, 4, log, integer=True).at(u / 1000) for u in range(1000)]
        assert set(values) == {1, 2, 3, 4}
    with pytest.raises(ValueError, match="needs integers as its ends"):
        Range(1.5, 4, integer=True)


def test_other_ranges_propose_as_before() -> None:
    assert Range(1e-4, 1.0).grid(3) == [1e-4, pytest.approx(1e-2), 1.0]
    assert Range(1.0, 4.0).grid(1) == [2.0]
    space: dict[str, Range | Choice] = {"lr": Range(1, 10)}
    algorithm = Algorithm("a", "sgd", {}, space, "random", 3)
    proposal = Tuning(algorithm, ["w"], lower_is_better=True).ask()
    assert proposal is not None
    assert isinstance(proposal[1]["lr"], float)
