"""The training loop: it trains one trial and emits its run. It knows nothing of studies."""

from optiscope.train.loop import OptimizerFactory, Progress, TrialError, run_trial, run_trials

__all__ = ["OptimizerFactory", "Progress", "TrialError", "run_trial", "run_trials"]
