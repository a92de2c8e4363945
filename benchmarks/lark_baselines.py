"""Table of Lark beside the best baseline of each problem, from the records of all its studies.

A problem's runs over as many epochs are put together from every ``records/lark-baselines*`` and the
baselines of ``records/preconditioner-fmnist_2c2d``: they share seeds, and so initial weights and
batches. Problems without an accuracy are left out. For the first-order and the matrix methods it
prints the one with the best mean test accuracy, Lark's lead over it with the 95 % interval of the
paired differences (not corrected for anything), and Lark's final training loss over the lowest mean
of the group with the epoch after which every run of Lark is at that mean.
Run with ``python benchmarks/lark_baselines.py``; it prints Markdown.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from optiscope.records import Run, StudyFolder
from optiscope.stats.comparison import paired_comparison

RECORDS = Path(__file__).parent / "records"
MATRIX = ("muon", "soap", "shampoo", "psgd_kron")
NOT_CHOSEN_ON = (  # Lark's defaults; last rows
    "cifar10_3c3d",
    "cifar10_resnet20",
    "cifar10_vit_patch8",
    "tolstoi_char_rnn",
    "tolstoi_gpt",
)
LEFT_OUT = ("preconditioned_sgd", "adaptive_sgd")  # the package's own, with a page of their own


@dataclass
class Method:
    """An algorithm's reporting runs on a problem, by seed.

    Attributes:
        optimizer: name in the catalogue.
        planned: seeds its study declares; it is shown when all of them are there.
        runs: those that reached their end.
    """

    optimizer: str
    planned: set[int]
    runs: dict[int, Run] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return set(self.runs) == self.planned

    def finals(self, key: str) -> dict[int, float]:
        return {seed: run.final[key] for seed, run in sorted(self.runs.items())}


def read_all() -> dict[tuple[str, int], dict[str, Method]]:
    """Methods by problem and epochs, and by label."""
    found: dict[tuple[str, int], dict[str, Method]] = defaultdict(dict)
    for path in [*sorted(RECORDS.glob("lark-baselines*")), RECORDS / "preconditioner-fmnist_2c2d"]:
        folder = StudyFolder(path)
        declaration = folder.declaration()
        planned = set(declaration["seeds"])
        optimizers = {a["label"]: a["optimizer"] for a in declaration["algorithms"]}
        for entry in folder.ledger():
            if entry.role != "reporting" or optimizers[entry.algorithm] in LEFT_OUT:
                continue
            new = Method(optimizers[entry.algorithm], planned)
            place = (entry.problem, declaration["epochs"][entry.problem])
            method = found[place].setdefault(entry.algorithm, new)
            run = folder.store.read(entry.trial_hash)
            if isinstance(run, Run) and run.status.complete:
                method.runs[entry.seed] = run
    return {key: found[key] for key in sorted(found, key=lambda key: key[0] in NOT_CHOSEN_ON)}


def cells(lark: Method, rivals: dict[str, Method]) -> list[str]:
    """The best of the rivals, Lark's lead over it, and training losses."""
    rivals = {name: m for name, m in rivals.items() if m.complete}
    if not rivals:
        return ["not run", "", ""]
    best = max(rivals, key=lambda name: mean(rivals[name].finals("test_accuracy").values()))
    ours, theirs = lark.finals("test_accuracy"), rivals[best].finals("test_accuracy")
    seeds = sorted(ours.keys() & theirs.keys())
    compared = paired_comparison(
        [ours[s] for s in seeds], [theirs[s] for s in seeds], higher_is_better=True
    )
    assert compared.difference is not None
    assert compared.interval is not None
    lead, low, high = (
        f"{100 * value:+.2f}".replace("-", "−")
        for value in (compared.difference, *compared.interval)
    )
    lowest = min(mean(m.finals("train_loss").values()) for m in rivals.values())
    ratio = mean(lark.finals("train_loss").values()) / lowest
    return [
        f"{best} {100 * mean(theirs.values()):.2f}",
        f"{lead} [{low}, {high}]",
        f"{ratio:.2g}, {epochs_to(lark, lowest)}",
    ]


def epochs_to(method: Method, loss: float) -> str:
    """The epoch after which all its runs are at a training loss."""
    reached = []
    for run in method.runs.values():
        epochs, losses = run.curve("train", "loss")
        at = [float(epoch) for epoch, x in zip(epochs, losses, strict=True) if x <= loss]
        if not at:
            return "not"
        reached.append(at[0])
    return f"epoch {max(reached):g}"


def main() -> None:
    columns = ["problem", "epochs", "Lark %"]
    for kind in ("first-order", "matrix"):
        columns += [f"best {kind} %", "lead, points", "loss ratio, reached"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for (problem, epochs), methods in read_all().items():
        if "Lark" not in methods:
            continue
        lark = methods["Lark"]
        baselines = {x: m for x, m in methods.items() if m.optimizer != "lark"}
        if any("test_accuracy" not in run.final for run in lark.runs.values()):
            continue  # the autoencoder
        row = [
            f"`{problem}`",
            str(epochs),
            f"{100 * mean(lark.finals('test_accuracy').values()):.2f}",
        ]
        for matrix in (False, True):
            group = {x: m for x, m in baselines.items() if (m.optimizer in MATRIX) == matrix}
            row += cells(lark, group)
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
