"""The training loop: it trains one trial and emits its run. It knows nothing of studies."""

from optiscope.train.loop import OptimizerFactory, Progress, run_trial, run_trials

__all__ = ["OptimizerFactory", "Progress", "run_trial", "run_trials"]
