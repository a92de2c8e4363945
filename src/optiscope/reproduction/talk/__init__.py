"""Experiments on the loss landscape, from L. Sagun's talk of 2018, measured and given verdicts."""

from __future__ import annotations

from optiscope.reproduction.talk.connected import CONNECTED
from optiscope.reproduction.talk.experiment import TalkExperiment, run_cells
from optiscope.reproduction.talk.large_batch import LARGE_BATCH
from optiscope.reproduction.talk.mean_field import MEAN_FIELD
from optiscope.reproduction.talk.noise import NOISE
from optiscope.reproduction.talk.two_phase import TWO_PHASE

__all__ = ["TALK", "TalkExperiment", "run_cells"]

TALK: dict[str, TalkExperiment] = {
    e.name: e for e in (NOISE, LARGE_BATCH, TWO_PHASE, MEAN_FIELD, CONNECTED)
}
