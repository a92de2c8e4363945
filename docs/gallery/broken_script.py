"""A broken script mended: what the doctor says before and after.

`examples/tutorial/broken.py` has six faults, two of them in the data, where no curve shows them.
`optiscope.check` looks before training, `optiscope.watch` during it. This page runs the script as
it was found, and with all mends; [the tutorial](../tutorial.md) goes one fault at a time.
"""

import runpy
import sys
from pathlib import Path

from matplotlib.figure import Figure

from optiscope.report.figure_style import figure_style

folder = Path(__file__).resolve().parents[2] / "examples" / "tutorial"
sys.path.insert(0, str(folder))
import mend  # noqa: E402

source = (folder / "broken.py").read_text().replace("seconds=10", "seconds=3")


def run(text):
    """Findings by rule, and validation accuracy after each epoch, of a script."""
    Path("train.py").write_text(text)
    report, watch, _, rows = runpy.run_path("train.py")["main"]()
    rules = {finding.rule for finding in (*report.findings, *watch.findings)}
    return rules, [
        value for *_, split, name, value in rows if (split, name) == ("valid", "accuracy")
    ]


mended = source
for one in mend.MENDS:
    mended = mended.replace(one.old, one.new)
mended = mended.replace(*mend.USUAL_WEIGHTS)

before, broken_curve = run(source)
after, mended_curve = run(mended)

# %%
# ## What was found
#
# The certain ones first: gradients that are never cleared, and validation samples that are
# trained on.

assert {"gradient_not_cleared", "overlap_exact", "augmentation_breaks_labels"} <= before
assert not {"gradient_not_cleared", "overlap_exact", "augmentation_breaks_labels"} & after
assert broken_curve[-1] < 0.3
assert mended_curve[-1] > 0.9

with figure_style():
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    left.plot(range(1, 13), broken_curve, "o-", color="#0072b2", label="as it was found")
    left.plot(range(1, 13), mended_curve, "s-", color="#d55e00", label="mended")
    left.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, 1))
    left.legend()
    right.axis("off")
    text = "found before\n\n" + "\n".join(f"  {rule}" for rule in sorted(before))
    text += "\n\nfound after\n\n" + (
        "\n".join(f"  {rule}" for rule in sorted(after)) or "  nothing"
    )
    right.text(0, 1, text, va="top", family="monospace", fontsize=8)
    figure.suptitle(
        "Six faults, named by their causes", x=0.01, ha="left", fontsize=11, fontweight="bold"
    )
figure.savefig("broken_script.png", dpi=110)
