"""Mend a broken training script one fault at a time, and keep a logbook.

    python examples/tutorial/mend.py runs/tutorial

Each step replaces lines of `broken.py`, runs the script under `optiscope.check` and
`optiscope.watch`, keeps the run and writes an entry. The logbook's page shows what each mend did.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optiscope.records.journal import append_entry, write_plain_run
from optiscope.report.logbook import Logbook, logbook
from optiscope.report.page.logbook import logbook_page

BROKEN = Path(__file__).with_name("broken.py")


@dataclass(frozen=True)
class Mend:
    """One mend: why, the lines it replaces, and the findings that must be gone after it."""

    why: str
    old: str
    new: str
    gone: tuple[str, ...]


MENDS = (
    Mend(
        "Clear the gradients before each backward pass",
        "            value.backward()\n",
        "            optimizer.zero_grad()\n            value.backward()\n",
        ("gradient_not_cleared",),
    ),
    Mend(
        "Validate on samples that are not trained on",
        "    valid = images[:300], labels[:300]\n",
        "    valid = images[1400:], labels[1400:]\n",
        ("overlap_exact",),
    ),
    Mend(
        "Turn images a little only: a 6 on its head is a 9",
        "- 1) * math.pi\n",
        "- 1) * math.pi / 18\n",
        ("augmentation_breaks_labels",),
    ),
    Mend(
        "Let the rate fall instead of rise",
        "gamma=1.5",
        "gamma=0.95",
        ("rate_rising",),
    ),
    Mend(
        "A larger rate",
        "lr=1e-5",
        "lr=0.1",
        ("rate_too_small",),
    ),
    Mend(
        "Rectifiers and the usual initial weights instead of saturated tanh",
        "nn.Tanh()",
        "nn.ReLU()",
        ("saturated_units",),
    ),
)
USUAL_WEIGHTS = (
    "    for layer in model:\n"
    "        if isinstance(layer, nn.Linear):\n"
    "            nn.init.normal_(layer.weight)\n",
    "",
)


def run_all(folder: Path) -> Logbook:
    """Run the broken script and the script after each mend; return the logbook."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "train.py"
    text = BROKEN.read_text()
    _run(folder, script, text, 0, "As it was found")
    for number, mend in enumerate(MENDS, 1):
        if mend.old not in text:
            raise ValueError(f"{mend.why}: the lines to replace are not in the script")
        text = text.replace(mend.old, mend.new)
        if "Rectifiers" in mend.why:
            text = text.replace(*USUAL_WEIGHTS)
        _run(folder, script, text, number, mend.why)
    book = logbook(folder)
    (folder / "logbook.html").write_text(logbook_page(book), encoding="utf-8")
    (folder / "logbook.md").write_text(book.markdown(), encoding="utf-8")
    return book


def _run(folder: Path, script: Path, text: str, number: int, why: str) -> None:
    script.write_text(text)
    names: dict[str, Any] = {"__name__": "tutorial_script"}
    exec(compile(text, str(script), "exec"), names)  # the file above, with the lines replaced
    main: Any = names["main"]
    report, watch, settings, rows = main()
    findings = [*report.findings, *watch.findings]
    run = write_plain_run(
        folder / f"{number}", settings, rows, [finding.to_dict() for finding in findings]
    )
    append_entry(run, why, code=[script])


def main() -> None:
    """Run everything into the folder named on the command line, and print the story."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/tutorial")
    for number, one in enumerate(run_all(folder).entries):
        print(f"{number}. {one.entry.why}")
        for word, rules in (("gone", one.gone), ("new", one.new), ("left", one.left)):
            if rules:
                print(f"   findings {word}: {', '.join(rules)}")
        if one.effect is not None:
            print(f"   {one.effect.words}")
    print(f"page: {folder / 'logbook.html'}")


if __name__ == "__main__":
    main()
