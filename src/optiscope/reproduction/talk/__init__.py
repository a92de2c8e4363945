"""Experiments on the loss landscape, from L. Sagun's talk of 2018, measured and given verdicts."""

from __future__ import annotations

from optiscope.reproduction.talk.connected import CONNECTED
from optiscope.reproduction.talk.experiment import TalkExperiment, run_cells
from optiscope.reproduction.talk.gd_sgd import GD_SGD
from optiscope.reproduction.talk.ingredients import INGREDIENTS
from optiscope.reproduction.talk.large_batch import LARGE_BATCH
from optiscope.reproduction.talk.mean_field import MEAN_FIELD
from optiscope.reproduction.talk.memorization import MEMORIZATION
from optiscope.reproduction.talk.noise import NOISE
from optiscope.reproduction.talk.redundancy import REDUNDANCY
from optiscope.reproduction.talk.same_basin import SAME_BASIN
from optiscope.reproduction.talk.split import SPLIT
from optiscope.reproduction.talk.two_phase import TWO_PHASE

__all__ = ["TALK", "TalkExperiment", "run_cells"]

TALK: dict[str, TalkExperiment] = {
    e.name: e
    for e in (
        NOISE,
        LARGE_BATCH,
        TWO_PHASE,
        MEAN_FIELD,
        CONNECTED,
        SAME_BASIN,
        SPLIT,
        MEMORIZATION,
        GD_SGD,
        INGREDIENTS,
        REDUNDANCY,
    )
}
