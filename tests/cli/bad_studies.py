"""Studies that cannot be run as declared, and what must be said of each."""

from __future__ import annotations

from typing import NamedTuple

GOOD = """\
name = "small"
question = "Which?"
problems = ["digits_logreg"]
epochs = 2
seeds = [11, 12]

[tuning]
sampler = "random"
budget = 2
seeds = [1]
select = "valid_loss"

[[algorithms]]
label = "SGD"
optimizer = "sgd"

[[algorithms]]
label = "Adam"
optimizer = "adam"
space = { lr = { low = 1e-4, high = 1e-2 } }
"""


class BadStudy(NamedTuple):
    """GOOD with one line changed: the line of the message, and words that must be in it."""

    name: str
    old: str
    new: str
    line: int
    words: tuple[str, ...]


CASES = [
    # Unknown names.
    BadStudy(
        "problem", '["digits_logreg"]', '["digits_logrek"]', 3, ("'digits_logrek'", "digits_logreg")
    ),
    BadStudy("optimizer", '"adam"', '"adm"', 19, ("'adm'", "adam")),
    BadStudy("word", "epochs", "epoch", 4, ("unknown word 'epoch'", "'epochs'")),
    BadStudy("word in tuning", "budget", "budgt", 9, ("unknown word 'budgt'", "'budget'")),
    BadStudy("word in algorithm", "space", "spaces", 20, ("unknown word 'spaces'", "'space'")),
    BadStudy("word in range", "low =", "lo =", 20, ("unknown word 'lo'", "'low'")),
    BadStudy("sampler", '"random"', '"randm"', 8, ("randm", "'random'")),
    BadStudy("hyperparameter", "space = { lr", "space = { larning_rate", 20, ("'larning_rate'",)),
    BadStudy(
        "fixed hyperparameter",
        'label = "SGD"',
        "fixed = { momentun = 0.9 }",
        14,
        ("'momentun'", "'momentum'"),
    ),
    BadStudy(
        "metric to select", '"valid_loss"', '"valid_los"', 11, ("'valid_los'", "'valid_loss'")
    ),
    BadStudy(
        "metric",
        "epochs",
        'metric = { digits_logreg = "acuracy" }\nepochs',
        4,
        ("'acuracy'", "'accuracy'"),
    ),
    BadStudy(
        "metric of a problem",
        "epochs",
        'metric = { digits_logrek = "loss" }\nepochs',
        4,
        ("'digits_logrek'", "'digits_logreg'"),
    ),
    BadStudy("reference", "epochs", 'reference = "SDG"\nepochs', 4, ("'SDG'", "'SGD'")),
    BadStudy(
        "schedule",
        "epochs",
        'schedule = { name = "linear_decy" }\nepochs',
        4,
        ("'linear_decy'", "'linear_decay'"),
    ),
    BadStudy("device", "epochs", 'device = "gpu"\nepochs', 4, ("gpu", "'cpu'", "'cuda'")),
    BadStudy(
        "problem of epochs",
        "epochs = 2",
        "epochs = { digits_logrek = 2 }",
        4,
        ("'digits_logrek'", "'digits_logreg'"),
    ),
    BadStudy("import path", '"adam"', '"nowhere.at_all:Adam"', 19, ("nowhere",)),
    BadStudy(
        "import path of a problem",
        '["digits_logreg"]',
        '["nowhere.at_all:problem"]',
        3,
        ("nowhere",),
    ),
    BadStudy("class at import path", '"adam"', '"torch.optim:Adm"', 19, ("'Adm'",)),
    # Wrong types.
    BadStudy("epochs as text", "epochs = 2", 'epochs = "2"', 4, ("epochs", "'2'")),
    BadStudy("epochs as fraction", "epochs = 2", "epochs = 2.5", 4, ("epochs", "2.5")),
    BadStudy("seeds as number", "seeds = [11, 12]", "seeds = 11", 5, ("seeds", "11")),
    BadStudy("seed as text", "seeds = [11, 12]", 'seeds = [11, "12"]', 5, ("seeds", "'12'")),
    BadStudy("problems as text", '["digits_logreg"]', '"digits_logreg"', 3, ("problems", "list")),
    BadStudy("rate as text", "low = 1e-4", 'low = "1e-4"', 20, ("low", "'1e-4'")),
    BadStudy(
        "fixed rate as text", 'label = "SGD"', 'fixed = { lr = "0.1" }', 14, ("lr of sgd", "'0.1'")
    ),
    BadStudy(
        "fixed rate as truth", 'label = "SGD"', "fixed = { lr = true }", 14, ("lr of sgd", "True")
    ),
    BadStudy(
        "fixed rate as list", 'label = "SGD"', "fixed = { lr = [0.1] }", 14, ("lr of sgd", "[0.1]")
    ),
    BadStudy(
        "fixed rate as date", 'label = "SGD"', "fixed = { lr = 2026-01-01 }", 14, ("lr of sgd",)
    ),
    BadStudy(
        "truth as text",
        'label = "SGD"',
        'fixed = { nesterov = "yes" }',
        14,
        ("nesterov of sgd", "'yes'"),
    ),
    BadStudy(
        "algorithm as text",
        '[[algorithms]]\nlabel = "SGD"\noptimizer = "sgd"\n',
        "[[algorithms]]\noptimizer = 3\n",
        14,
        ("optimizer", "3"),
    ),
    BadStudy(
        "choice as number", "{ low = 1e-4, high = 1e-2 }", "{ choice = 0.1 }", 20, ("choice",)
    ),
    BadStudy("clip as number", 'label = "SGD"', "clip = 1.0", 14, ("clip",)),
    # Values that cannot be.
    BadStudy("no epochs", "epochs = 2", "epochs = 0", 4, ("epochs", "0")),
    BadStudy(
        "no epochs of a problem", "epochs = 2", "epochs = { digits_logreg = 0 }", 4, ("epochs", "0")
    ),
    BadStudy("negative seed", "seeds = [11, 12]", "seeds = [-1, 12]", 5, ("seeds", "-1")),
    BadStudy("no seeds", "seeds = [11, 12]", "seeds = []", 5, ("seeds",)),
    BadStudy("no tuning seeds", "seeds = [1]", "seeds = []", 10, ("seeds",)),
    BadStudy("no problems", '["digits_logreg"]', "[]", 3, ("problems",)),
    BadStudy("no budget", "budget = 2", "budget = 0", 9, ("budget", "0")),
    BadStudy("negative rate", "low = 1e-4", "low = -1e-4", 20, ("lr", "-0.0001")),
    BadStudy("rate of zero on a logarithmic scale", "low = 1e-4", "low = 0.0", 20, ("lr", "0.0")),
    BadStudy("rate that is not a number", "low = 1e-4", "low = nan", 20, ("low", "nan")),
    BadStudy("infinite rate", "high = 1e-2", "high = inf", 20, ("high", "inf")),
    BadStudy("range upside down", "low = 1e-4", "low = 1.0", 20, ("low < high", "1.0")),
    BadStudy(
        "negative rate on a linear scale",
        "low = 1e-4",
        "log = false, low = -1.0",
        20,
        ("lr of adam", "-1.0"),
    ),
    BadStudy(
        "negative rate in a choice",
        "{ low = 1e-4, high = 1e-2 }",
        "{ choice = [0.1, -0.1, 0.2] }",
        20,
        ("lr of adam", "-0.1"),
    ),
    BadStudy(
        "negative fixed rate", 'label = "SGD"', "fixed = { lr = -0.1 }", 14, ("lr of sgd", "-0.1")
    ),
    BadStudy(
        "fixed rate that is not a number",
        'label = "SGD"',
        "fixed = { lr = nan }",
        14,
        ("lr", "nan"),
    ),
    BadStudy(
        "refused by the optimizer",
        'label = "SGD"',
        "fixed = { momentum = -0.9 }",
        14,
        ("momentum", "-0.9"),
    ),
    BadStudy(
        "empty search space",
        "{ lr = { low = 1e-4, high = 1e-2 } }",
        "{}",
        20,
        ("search space", "empty"),
    ),
    BadStudy(
        "endless choice",
        "{ low = 1e-4, high = 1e-2 }",
        f"{{ choice = {[n / 1e4 for n in range(1, 1002)]} }}",
        20,
        ("choice", "1000"),
    ),
    BadStudy("empty choice", "{ low = 1e-4, high = 1e-2 }", "{ choice = [] }", 20, ("choice",)),
    BadStudy("fixed and tuned", "space =", "fixed = { lr = 0.1 }\nspace =", 20, ("'lr'", "both")),
    BadStudy(
        "grid without points",
        "space = { lr = { low = 1e-4, high = 1e-2 } }",
        'sampler = "grid"\n'
        "space = { lr = { low = 1e-4, high = 1e-2 }, eps = { low = 1e-8, high = 1e-4 } }",
        21,
        ("points", "'lr'"),
    ),
    BadStudy("one point", "high = 1e-2", "high = 1e-2, points = 1", 20, ("points", "1")),
    BadStudy("clip of nothing", 'label = "SGD"', "clip = { norm = 0.0 }", 14, ("clip", "0.0")),
    BadStudy("clip of two", 'label = "SGD"', "clip = { norm = 1.0, value = 1.0 }", 14, ("clip",)),
    BadStudy(
        "clip by another word", 'label = "SGD"', "clip = { size = 1.0 }", 14, ("clip", "size")
    ),
    BadStudy("infinite clip", 'label = "SGD"', "clip = { norm = inf }", 14, ("norm", "inf")),
    BadStudy(
        "schedule with a wrong word",
        'label = "SGD"',
        'schedule = { name = "StepLR", step_sise = 3 }',
        14,
        ("StepLR", "step_sise"),
    ),
    BadStudy(
        "schedule that its optimizer refuses",
        'label = "SGD"',
        'schedule = { name = "CyclicLR", max_lr = 1, scale_fn = 3 }',
        14,
        ("CyclicLR",),
    ),
    BadStudy(
        "schedule with nan",
        'label = "SGD"',
        'schedule = { name = "linear_decay", final = nan }',
        14,
        ("final", "nan"),
    ),
    BadStudy(
        "plateau on the test set",
        'label = "SGD"',
        'schedule = { name = "ReduceLROnPlateau", metric = "test_loss" }',
        14,
        ("'test_loss'", "'valid_loss'"),
    ),
    BadStudy(
        "no patience", 'label = "SGD"', "early_stopping = { patience = 0 }", 14, ("patience", "0")
    ),
    BadStudy(
        "stopping on the test set",
        'label = "SGD"',
        'early_stopping = { metric = "test_loss" }',
        14,
        ("validation", "'test_loss'"),
    ),
    BadStudy(
        "stopping on what is not measured",
        'label = "SGD"',
        'early_stopping = { metric = "valid_acuracy" }',
        14,
        ("'valid_acuracy'", "'valid_accuracy'"),
    ),
    BadStudy("level", "epochs", "level = 0.7\nepochs", 4, ("level", "0.7")),
    BadStudy(
        "margin", "epochs", "equivalence_margin = -0.1\nepochs", 4, ("equivalence_margin", "-0.1")
    ),
    BadStudy("threads", "epochs", "threads = 0\nepochs", 4, ("threads", "0")),
    BadStudy("seconds", "epochs", "max_seconds = inf\nepochs", 4, ("max_seconds", "inf")),
    BadStudy("colour", 'label = "SGD"', 'colour = "red"', 14, ("colour", "'red'")),
    BadStudy("name with a slash", '"small"', '"a/b"', 1, ("name", "'a/b'")),
    BadStudy(
        "initialisation",
        "epochs",
        'initialisation = { name = "he_norml" }\nepochs',
        4,
        ("he_norml",),
    ),
    # What would mislead.
    BadStudy(
        "horizon of the tuning",
        "budget = 2",
        "budget = 2\nepochs = 1",
        10,
        ("horizon", "epochs once"),
    ),
    BadStudy(
        "horizon of an algorithm", 'label = "SGD"', "epochs = 5", 14, ("horizon", "epochs once")
    ),
    BadStudy("seeds in both", "seeds = [1]", "seeds = [12]", 5, ("12", "both")),
    BadStudy("a seed twice", "seeds = [11, 12]", "seeds = [11, 11]", 5, ("11", "twice")),
    BadStudy("a label twice", '"SGD"', '"Adam"', 17, ("'Adam'", "twice")),
    BadStudy(
        "a problem twice",
        '["digits_logreg"]',
        '["digits_logreg", "digits_logreg"]',
        3,
        ("'digits_logreg'", "twice"),
    ),
    BadStudy(
        "tuning by the test set", '"valid_loss"', '"test_loss"', 11, ("test set", "'test_loss'")
    ),
    # No study at all.
    BadStudy("no name", 'name = "small"\n', "", 0, ("name is missing",)),
    BadStudy("no algorithms", GOOD[GOOD.index("[[alg") :], "", 0, ("algorithms is missing",)),
    BadStudy("no optimizer", 'optimizer = "sgd"\n', "", 13, ("optimizer is missing",)),
    BadStudy("not TOML", "epochs = 2", "epochs = ", 4, ("not valid TOML",)),
    BadStudy("a key twice", "epochs = 2", "epochs = 2\nepochs = 3", 5, ("not valid TOML",)),
]
