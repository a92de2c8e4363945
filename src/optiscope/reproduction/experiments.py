"""The experiments: which studies they are made of, at full and at small scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from optiscope.study import Study, load_study

__all__ = ["EXPERIMENTS", "Experiment", "Part", "Scale", "TimedProblem", "experiment"]

Scale = Literal["small", "full"]


@dataclass(frozen=True)
class Part:
    """A study of an experiment, at one scale.

    Attributes:
        study: name of the shipped study.
        epochs: horizon; the study's own where None.
        seeds: number of reporting seeds, the first of the study's; all where None.
        batch_size: in place of the study's.
    """

    study: str
    epochs: int | None = None
    seeds: int | None = None
    batch_size: int | None = None

    @property
    def name(self) -> str:
        """Folder of its records."""
        batch = "" if self.batch_size is None else f"_batch_{self.batch_size}"
        return f"{self.study}{batch}"

    def load(self) -> Study:
        """The study at this scale."""
        study = load_study(self.study)
        names = [p.name for p in study.problems]
        if self.epochs is not None:
            study = replace(study, epochs=dict.fromkeys(names, self.epochs))
        if self.batch_size is not None:
            study = replace(study, batch_sizes=dict.fromkeys(names, self.batch_size))
        return study if self.seeds is None else study.with_seeds(self.seeds)


@dataclass(frozen=True)
class TimedProblem:
    """A problem on which training is timed.

    Attributes:
        problem: its name.
        repetitions: epochs of each optimizer, in turn, after one that warms up.
    """

    problem: str
    repetitions: int


@dataclass(frozen=True)
class Experiment:
    """A published experiment.

    Attributes:
        name: word for the command line.
        title: heading of its page.
        published: what was done and found, in words.
        parts: studies by scale.
        timed: problems to time, by scale.
        source: where it was published.
    """

    name: str
    title: str
    published: str
    parts: Mapping[Scale, tuple[Part, ...]] = field(default_factory=dict)
    timed: Mapping[Scale, tuple[TimedProblem, ...]] = field(default_factory=dict)
    source: str = (
        "L. Bald 2019, Investigating Probabilistic Preconditioning on Artificial Neural Networks"
    )


EXPERIMENTS: dict[str, Experiment] = {
    e.name: e
    for e in (
        Experiment(
            "preconditioning",
            "Experiment 1: preconditioning with a constructed rate",
            "PreconditionedSGD against SGD, momentum and Adam at their tuned rates (part A), and "
            "with phases switched off (part B): est_rank 2, 5 observations, 10 prior iterations "
            "(the text says 10 and 5), batch 128, 100 epochs, 10 seeds. Published: it loses to "
            "all tuned baselines on both problems, and AdaptiveSGD, which does not precondition, "
            "ends above it.",
            {
                "small": (
                    Part("preconditioning_fmnist_2c2d", 10, 3),
                    Part("phases_fmnist_2c2d", 2, 3),
                ),
                "full": tuple(
                    Part(f"{kind}_{problem}")
                    for problem in ("fmnist_2c2d", "cifar10_3c3d")
                    for kind in ("preconditioning", "phases")
                ),
            },
        ),
        Experiment(
            "cost",
            "Experiment 2: what an epoch costs",
            "Seconds of training over those of SGD, five runs of five epochs each, one after the "
            "other; here optimizers take turns, epoch by epoch. The text names mnist_mlp, the "
            "script ran fmnist_2c2d: here are both.",
            timed={
                "small": (TimedProblem("mnist_mlp", 25), TimedProblem("fmnist_2c2d", 3)),
                "full": (TimedProblem("mnist_mlp", 25), TimedProblem("fmnist_2c2d", 25)),
            },
        ),
        Experiment(
            "initialisation",
            "Experiment 3: initialisation and batch size",
            "PreconditionedSGD on CIFAR-10 with explicit and with framework initialisation, "
            "batch 32, 64 and 128, five epochs, ten seeds. Published: no run diverged with the "
            "constructed first rate.",
            {
                "small": tuple(Part("initialisation", 1, 2, batch) for batch in (32, 64, 128)),
                "full": tuple(Part("initialisation", None, None, b) for b in (32, 64, 128)),
            },
        ),
        Experiment(
            "sensitivity",
            "Experiment 4: the rate of the first epoch",
            "Ten rates between 1e-5 and 100 for the first epoch, one seed, 100 epochs on "
            "fmnist_2c2d; later epochs use constructed rates. Published: 'next to no effect' - "
            "but runs with 0.002 or 0.013 end two points lower, and from 0.5 on all diverge.",
            {"small": (Part("sensitivity", 2, 1),), "full": (Part("sensitivity"),)},
        ),
        Experiment(
            "defects",
            "Which defect of the published program costs what",
            "Not published: the thesis does not know of them. Each defect of its program is mended "
            "by itself, then all are; beside them stands the algorithm of this package, global "
            "where the program works layer by layer.",
            {"small": (Part("defects", 3, 5),), "full": (Part("defects"),)},
        ),
        Experiment(
            "estimation",
            "What rank, observations and prior iterations do",
            "Asked for by the thesis, not published.",
            {"small": (Part("estimation", 5, 3),), "full": (Part("estimation"),)},
        ),
        Experiment(
            "parameter_groups",
            "One rate for the network, or one for each layer",
            "Asked for by the thesis, not published.",
            {"small": (Part("parameter_groups", 5, 3),), "full": (Part("parameter_groups"),)},
        ),
    )
}


def experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"expected one of {', '.join(EXPERIMENTS)}, got {name!r}")
    return EXPERIMENTS[name]
