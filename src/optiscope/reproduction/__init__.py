"""The published experiments as studies, beside what was published."""

from optiscope.reproduction.experiments import EXPERIMENTS, Experiment
from optiscope.reproduction.reproduce import reproduce

__all__ = ["EXPERIMENTS", "Experiment", "reproduce"]
