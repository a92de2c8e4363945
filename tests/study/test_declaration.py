"""A study as it is declared, and as it is understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from optiscope.optim.spec import Choice, Range
from optiscope.stats.sign_flip import fewest_seeds
from optiscope.study import Study, StudyError, load_study, shipped_studies
from optiscope.study.toml_lines import line_of

TEXT = """\
# A comment before anything.
name = "two"
question = "Which?"
problems = [
    "digits_mlp",
    "digits_logreg",
]
epochs = { digits_mlp = 3 }
batch_size = 64
seeds = [5, 3]
schedule = { name = "linear_decay" }
metric = { digits_mlp = "loss" }
reference = "mine"

[tuning]
sampler = "qmc"
budget = 4
seeds = [1, 2]
select = "valid_accuracy"

[[algorithms]]
optimizer = "sgd"

[[algorithms]]
label = "mine"
optimizer = "torch.optim:Adam"
sampler = "grid"
schedule = { name = "StepLR", step_size = 5 }
clip = { norm = 1.0 }
early_stopping = { metric = "valid_loss", patience = 3 }

[algorithms.fixed]
eps = 1e-6

[algorithms.space]
lr = { low = 1e-4, high = 1e-1, points = 5 }
betas = { choice = [[0.9, 0.999], [0.8, 0.99]] }

[[algorithms]]
label = "untuned"
optimizer = "sgd"
fixed = { lr = 0.5 }
"""


def loaded(folder: Path, text: str = TEXT) -> Study:
    (folder / "study.toml").write_text(text)
    return load_study(folder / "study.toml")


def test_what_is_declared_is_understood(tmp_path: Path) -> None:
    study = loaded(tmp_path)
    assert [p.name for p in study.problems] == ["digits_mlp", "digits_logreg"]
    assert study.epochs == {"digits_mlp": 3, "digits_logreg": 10}
    assert study.batch_sizes == {"digits_mlp": 64, "digits_logreg": 64}
    assert study.metric == {"digits_mlp": "loss", "digits_logreg": "accuracy"}
    assert (study.seeds, study.tuning_seeds) == ((5, 3), (1, 2))
    assert study.reference == "mine"
    sgd, mine, untuned = study.algorithms
    assert (sgd.label, sgd.sampler, sgd.budget) == ("sgd", "qmc", 4)
    assert sgd.schedule == {"name": "linear_decay"}
    assert isinstance(sgd.space["lr"], Range)
    assert mine.schedule == {"name": "StepLR", "step_size": 5}
    assert (mine.sampler, mine.budget) == ("grid", 10)
    assert mine.space["betas"] == Choice([[0.9, 0.999], [0.8, 0.99]])
    assert (untuned.tuned, untuned.budget) == (False, 0)


def test_a_trial_has_all_that_its_algorithm_declares(tmp_path: Path) -> None:
    study = loaded(tmp_path)
    trial = study.trial(study.algorithms[1], study.problems[0], {"lr": 0.01}, 3)
    assert trial.problem == "digits_mlp"
    assert trial.optimizer == "torch.optim:Adam"
    assert trial.hyperparameters == {"eps": 1e-6, "lr": 0.01}
    assert (trial.seed, trial.epochs, trial.batch_size) == (3, 3, 64)
    assert trial.clip == {"norm": 1.0}
    assert trial.early_stopping == {"metric": "valid_loss", "patience": 3}
    assert trial.schedule == {"name": "StepLR", "step_size": 5}


def test_the_reference_is_the_first_algorithm_unless_declared(tmp_path: Path) -> None:
    assert loaded(tmp_path, TEXT.replace('reference = "mine"\n', "")).reference == "sgd"


RESEARCH = Path(__file__).parents[2] / "benchmarks" / "studies"
PUBLISHED = ("defects", "estimation", "initialisation", "parameter_groups", "phases_cifar10_3c3d",
             "phases_fmnist_2c2d", "preconditioning_cifar10_3c3d", "preconditioning_fmnist_2c2d",
             "sensitivity")  # fmt: skip
STUDIES = [*shipped_studies(), *PUBLISHED, *map(str, sorted(RESEARCH.glob("*.toml")))]


def test_only_studies_to_start_from_are_listed() -> None:
    assert set(shipped_studies()) == {"quickstart", "fashion_quick", "lark-speed"}
    assert len(STUDIES) >= 31


@pytest.mark.parametrize("name", STUDIES, ids=lambda name: Path(name).stem)
def test_every_study_that_comes_along_is_a_good_example(name: str) -> None:
    study = load_study(name)
    assert study.name == Path(name).stem
    assert study.question.endswith("?")
    assert len(study.seeds) >= 3


def test_quickstart_is_what_its_issue_asks() -> None:
    study = load_study("quickstart")
    assert "digits_attention" in study.epochs  # where optimizers differ
    assert {"sgd", "adam", "lark"} <= {a.optimizer for a in study.algorithms}
    assert len(study.algorithms) <= 4
    assert (len(study.seeds), study.compare) == (10, "baseline")
    family = len(study.problems) * (len(study.algorithms) - 1)
    assert fewest_seeds(study.level / family) < len(study.seeds)
    assert not set(study.seeds) & set(study.tuning_seeds)


@pytest.mark.parametrize("source", ["", ".", "no/such/file.toml", "quickstart.toml "])
def test_no_such_study(source: str) -> None:
    with pytest.raises(StudyError, match="quickstart"):
        load_study(source)


def test_a_file_that_is_not_there_is_told_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "my_study.toml").write_text("")
    with pytest.raises(StudyError, match=r"^no such file: .*mystudy.*; did you mean .*my_study"):
        load_study(tmp_path / "mystudy.toml")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("name",), 2),
        (("problems", 1), 4),
        (("epochs", "digits_mlp"), 8),
        (("tuning",), 15),
        (("tuning", "select"), 19),
        (("algorithms", 0), 21),
        (("algorithms", 0, "label"), 21),
        (("algorithms", 1), 24),
        (("algorithms", 1, "label"), 25),
        (("algorithms", 1, "fixed", "eps"), 33),
        (("algorithms", 1, "space", "lr", "low"), 36),
        (("algorithms", 2, "fixed"), 42),
        (("nothing",), None),
        ((), None),
    ],
)
def test_lines_of_keys(path: tuple[str | int, ...], line: int | None) -> None:
    assert line_of(TEXT, path) == line


def test_lines_of_dotted_quoted_and_commented_keys() -> None:
    text = (
        "[[algorithms]]  # the first\n"
        'optimizer = "sgd"\n'
        "space.lr = { low = 1.0, high = 0.1 }\n"
        'fixed."weight_decay" = 0.1\n'
        "# optimizer = 3\n"
        "[ tuning ]\n"
        "  budget = 3\n"
    )
    assert line_of(text, ("algorithms", 0)) == 1
    assert line_of(text, ("algorithms", 0, "space", "lr", "low")) == 3
    assert line_of(text, ("algorithms", 0, "fixed", "weight_decay")) == 4
    assert line_of(text, ("tuning", "budget")) == 7


@pytest.mark.parametrize(
    ("problem", "value", "message"),
    [
        ("digits_logreg", "92.05", "line 47: an accuracy is a fraction between 0 and 1, got 92.05"),
        ("digits_lgreg", "0.9", "line 46: unknown problem 'digits_lgreg'; did you mean"),
    ],
)
def test_goals_that_cannot_be_meant(tmp_path: Path, problem: str, value: str, message: str) -> None:
    goal = f'\n\n[[goals]]\nproblem = "{problem}"\nvalue = {value}\nmeaning = "published"\n'
    with pytest.raises(StudyError, match=message):
        loaded(tmp_path, TEXT + goal)


def test_a_goal_is_kept(tmp_path: Path) -> None:
    goal = {"problem": "digits_logreg", "value": 0.9, "meaning": "published"}
    text = '\n[[goals]]\nproblem = "digits_logreg"\nvalue = 0.9\nmeaning = "published"\n'
    assert loaded(tmp_path, TEXT + text).to_dict()["goals"] == [goal]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('{ name = "linear_decay" }', '"cosine"', 10),
        ('{ name = "StepLR", step_size = 5 }', '"cosine"', 27),
    ],
)
def test_a_schedule_in_a_word_is_told_its_form(
    tmp_path: Path, old: str, new: str, line: int
) -> None:
    with pytest.raises(StudyError, match=r"a schedule is a table such as \{ name =") as caught:
        loaded(tmp_path, TEXT.replace(old, new, 1))
    assert "got 'cosine'" in str(caught.value)
    assert "dict[" not in str(caught.value)
    assert str(caught.value).count("schedule:") == 1


def test_a_study_without_a_schedule_leaves_it_out(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="a study without a schedule leaves the word out"):
        loaded(tmp_path, TEXT.replace('{ name = "linear_decay" }', '"none"', 1))


BARE = """\
from torch.optim import SGD
from optiscope.optim.spec import OptimizerSpec

class Lion(SGD):
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99)):
        super().__init__(params, lr=lr)

class Passing(Lion):
    def __init__(self, params, *args, **kwargs):
        super().__init__(params, *args, **kwargs)

class Still(SGD):
    def __init__(self, params):
        super().__init__(params, lr=0.1)

class NoRate(SGD):
    def __init__(self, params, beta=0.9):
        super().__init__(params, lr=0.1)

SPEC = OptimizerSpec("lion", Lion)
CHOSEN = OptimizerSpec("lion", Lion, defaults={"lr": 0.1, "betas": (0.9, 0.99)})
"""


def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, head: str = "") -> Study:
    (tmp_path / "bare_optimizers.py").write_text(BARE)
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "study.toml"
    file.write_text(
        'name = "s"\nquestion = "?"\nproblems = ["digits_logreg"]\nseeds = [1, 2]\n'
        f'{head}\n[[algorithms]]\noptimizer = "adam"\n[[algorithms]]\n{words}\n'
    )
    return load_study(file)


@pytest.mark.parametrize("name", ["Lion", "Passing", "SPEC"])
@pytest.mark.parametrize("more", ["", "fixed = { betas = [0.9, 0.95] }"])
def test_an_optimizer_that_nobody_would_tune_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, more: str
) -> None:
    with pytest.raises(StudyError, match=r"line 9: .* hyperparameter lr and no space") as error:
        bare(tmp_path, monkeypatch, f'optimizer = "bare_optimizers:{name}"\n{more}')
    for way in ("space.lr = {", "fixed = { lr = VALUE }", 'tune = "none"'):
        assert way in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        'optimizer = "bare_optimizers:Lion"\nfixed = { lr = 0.1 }',
        'optimizer = "bare_optimizers:Lion"\nspace.lr = { low = 1e-4, high = 1e-1 }',
        'optimizer = "bare_optimizers:Still"',
        'optimizer = "bare_optimizers:NoRate"\nfixed = { beta = 0.9 }',
        'optimizer = "bare_optimizers:CHOSEN"',
        'optimizer = "lark"',
        'optimizer = "prodigy"',
    ],
)
def test_ways_to_say_what_is_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    if "prodigy" in words:
        pytest.importorskip("prodigyopt")
    study = bare(tmp_path, monkeypatch, words)
    assert "default" not in study.algorithms[1].label
    assert "tune" not in study.to_dict()["algorithms"][1]


@pytest.mark.parametrize("optimizer", ["bare_optimizers:Lion", "bare_optimizers:NoRate", "sgd"])
def test_default_hyperparameters_are_said_in_the_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    from optiscope.stats.naming import algorithm_name

    fixed = "\nfixed = { lr = 0.1 }" if optimizer == "sgd" else ""
    words = f'optimizer = "{optimizer}"\nlabel = "mine"\ntune = "none"{fixed}'
    study = bare(tmp_path, monkeypatch, words, head='reference = "mine"')
    algorithm = study.algorithms[1]
    assert algorithm.label == study.reference == "mine (default hyperparameters)"
    assert (algorithm.budget, algorithm.tuned) == (0, False)
    entry = study.to_dict()["algorithms"][1]
    assert entry["tune"] == "none"
    assert "; default hyperparameters)" in algorithm_name(entry) or "(default" in (
        algorithm_name(entry)
    )


def test_a_space_and_no_tuning_exclude_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = 'optimizer = "sgd"\ntune = "none"\nspace.lr = { low = 1e-4, high = 1e-1 }'
    with pytest.raises(StudyError, match="exclude each other"):
        bare(tmp_path, monkeypatch, words)


def test_all_shipped_studies_are_valid() -> None:
    for name in shipped_studies():
        assert load_study(name).algorithms


def test_a_name_with_a_blank_is_told_in_words(tmp_path: Path) -> None:
    name = next(line for line in TEXT.splitlines() if line.startswith("name = "))
    with pytest.raises(StudyError, match=r"name: expected a name of letters.*'my study'"):
        loaded(tmp_path, TEXT.replace(name, 'name = "my study"'))


def test_american_spelling_is_the_same_key(tmp_path: Path) -> None:
    british = TEXT.replace(
        'label = "untuned"',
        'label = "untuned"\ncolour = "#123456"\ninitialisation = { name = "he_normal" }',
    )
    american = british.replace("initialisation", "initialization").replace("colour", "color")
    first, second = loaded(tmp_path, british), loaded(tmp_path, american)
    assert first.algorithms == second.algorithms
    assert second.algorithms[2].colour == "#123456"
    both = american.replace("color =", 'colour = "#000000"\ncolor =')
    with pytest.raises(StudyError, match="one key"):
        loaded(tmp_path, both)


def test_many_seeds_are_told_apart_at_once(tmp_path: Path) -> None:
    """Each is compared with all before it: a table of them, not a list."""
    seeds = [*range(10, 50_000), 11]
    with pytest.raises(StudyError, match="seed 11 stands twice"):
        loaded(tmp_path, TEXT.replace("seeds = [5, 3]", f"seeds = {seeds}"))
