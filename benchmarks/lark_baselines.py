"""Table of Lark beside the best baseline of each problem, from the records of all its studies.

A problem's runs are put together from every ``records/lark-baselines*``: they share seeds, and so
initial weights and batches. For the first-order and the matrix methods it prints the one with the
best mean test accuracy, Lark's lead over it with the 95 % interval of the paired differences (not
corrected for anything), and Lark's final training loss over the lowest mean of the group with the
epochs after which Lark is at that mean, of those trained.
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


def read_all() -> dict[str, dict[str, Method]]:
    """Methods by problem and label."""
    found: dict[str, dict[str, Method]] = defaultdict(dict)
    for path in sorted(RECORDS.glob("lark-baselines*")):
        folder = StudyFolder(path)
        declaration = folder.declaration()
        optimizers = {a["label"]: a["optimizer"] for a in declaration["algorithms"]}
        for entry in folder.ledger():
            if entry.role != "reporting" or optimizers[entry.algorithm] in LEFT_OUT:
                continue
            planned = set(declaration["seeds"])
            new = Method(optimizers[entry.algorithm], planned)
            method = found[entry.problem].setdefault(entry.algorithm, new)
            run = folder.store.read(entry.trial_hash)
            if isinstance(run, Run) and run.status.complete:
                method.runs[entry.seed] = run
    return found


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
    low, high = (100 * end for end in compared.interval)
    lead = f"{100 * compared.difference:+.2f} [{low:+.2f}, {high:+.2f}]"
    lowest = min(mean(m.finals("train_loss").values()) for m in rivals.values())
    ratio = mean(lark.finals("train_loss").values()) / lowest
    return [
        f"{best} {100 * mean(theirs.values()):.2f}",
        lead,
        f"{ratio:.2g}, {epochs_to(lark, lowest)}",
    ]


def epochs_to(method: Method, loss: float) -> str:
    """Epochs after which all its runs are at a training loss, of those trained."""
    reached = []
    for run in method.runs.values():
        epochs, losses = run.curve("train", "loss")
        at = [float(epoch) for epoch, x in zip(epochs, losses, strict=True) if x <= loss]
        if not at:
            return "not reached"
        reached.append(at[0])
    return f"{max(reached):g} of {float(epochs[-1]):g}"


def main() -> None:
    columns = ["problem", "Lark %"]
    for kind in ("first-order", "matrix"):
        columns += [f"best {kind} %", "lead", "loss ratio, epochs"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for problem, methods in read_all().items():
        lark = methods.pop("Lark")
        row = [f"`{problem}`", f"{100 * mean(lark.finals('test_accuracy').values()):.2f}"]
        for matrix in (False, True):
            group = {x: m for x, m in methods.items() if (m.optimizer in MATRIX) == matrix}
            row += cells(lark, group)
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
