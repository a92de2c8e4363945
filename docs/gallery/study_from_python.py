"""A study from a notebook: declare, run, ask.

A study is one TOML text, from a file or from Python. `run_study` tunes and runs it, `claim`
answers a question about it, and `frame` gives the records to pandas. Run the cell again after an
interruption: it goes on where it stopped.
"""

from pathlib import Path

from matplotlib.figure import Figure

from optiscope import load_study, run_study
from optiscope.report.appearance import looks
from optiscope.report.figure_style import figure_style
from optiscope.report.figures.forest import differences, draw_forest
from optiscope.stats.claims import claim, study_claims

Path("study.toml").write_text("""
name = "notebook"
question = "Is momentum better than plain gradient descent on digits after two epochs?"
problems = ["digits_logreg"]
epochs = 2
seeds = [11, 12, 13, 14, 15, 16]
reference = "SGD"
compare = "baseline"

[tuning]
sampler = "grid"
budget = 2
seeds = [1]

[[algorithms]]
label = "SGD"
optimizer = "sgd"
space.lr = { low = 0.03, high = 0.3, log = true }

[[algorithms]]
label = "Momentum"
optimizer = "momentum"
space.lr = { low = 0.01, high = 0.1, log = true }
""")
folder = run_study(load_study("study.toml"), "notebook", workers=1)

# %%
# ## Ask

answer = claim("Momentum better than SGD on digits_logreg", folder)
print(answer.sentence)

frame = folder.frame()
evaluated = frame[frame.role == "reporting"]
assert len(evaluated) == 12
assert evaluated.final_test_accuracy.min() > 0.8
print(evaluated.groupby("algorithm").final_test_accuracy.agg(["mean", "std"]))

# %%
# ## Draw
#
# Each tick is one seed's difference to the baseline, paired by seed.

labels = ["SGD", "Momentum"]
rows = differences("digits_logreg", study_claims(folder), labels, "SGD")
with figure_style():
    figure = Figure(figsize=(7.5, 1.9), layout="constrained")
    draw_forest(figure.subplots(), rows, looks(labels), "accuracy", "SGD")
    figure.suptitle("Momentum beside SGD, paired by seed", x=0.01, ha="left", fontsize=11)
figure.savefig("study_from_python.png", dpi=110)
