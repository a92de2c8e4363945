"""The training loop: it trains one trial and emits its run."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optiscope.data.samples import Batch, Splits
from optiscope.errors import OptiscopeError
from optiscope.problems.initialisation import initialise
from optiscope.problems.problem import ParamGroup, Problem, regularization
from optiscope.records import Measurement, Run, Status, Trial, summarise
from optiscope.train.clipping import check_clip, clip_gradients
from optiscope.train.clock import PhaseClock
from optiscope.train.early_stopping import EarlyStopping
from optiscope.train.environment import environment
from optiscope.train.evaluation import check_watched, evaluate
from optiscope.train.generators import Generators, seed_global_generators
from optiscope.train.layout import in_fast_layout
from optiscope.train.memory import peak_memory_bytes, reset_peak_memory
from optiscope.train.optimizer_log import optimizer_log
from optiscope.train.optimizer_modes import evaluation_mode, has_modes
from optiscope.train.pruning import Pruning
from optiscope.train.schedule import Schedule, make_schedule

__all__ = ["OptimizerFactory", "Progress", "TrialError", "run_trial", "run_trials"]

BEYOND = 1e19  # of a weight's size: about the root of the largest number in float32
SYNC_EVERY = 50  # steps between looks at the loss on a GPU, where a look waits for the device

Progress = Callable[[float, Mapping[str, float]], None]
"""Called after each evaluation with the share of the horizon done and the latest values."""


class OptimizerFactory(Protocol):
    """Builds the optimizer of a trial."""

    @property
    def closure(self) -> bool:
        """Whether ``step`` must be given a closure."""
        ...

    def __call__(
        self, groups: Sequence[ParamGroup], *, horizon: int, steps_per_epoch: int
    ) -> Optimizer:
        """Optimizer of ``groups`` for a horizon in steps; raises ValueError on bad settings."""
        ...


class TrialError(OptiscopeError, ValueError):
    """A trial that cannot even begin; the message is one line that says why and what to do."""


class _Diverged(Exception):
    """The loss is not finite."""


class _CallbackError(Exception):
    """The caller's progress callback raised ``original``."""

    def __init__(self, original: Exception) -> None:
        super().__init__(str(original))
        self.original = original


class _Ended(Exception):
    """The run ends before its horizon, with a status and a reason."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def run_trials(
    trials: Sequence[Trial],
    problem: Problem,
    factories: Sequence[OptimizerFactory],
    **options: Any,
) -> Iterator[Run]:
    """Runs of several trials of one problem, in order.

    Trials are handed over in lists so that a device may train several at once; on a CPU they run
    one after the other. ``options`` are those of :func:`run_trial`.
    """
    for trial, factory in zip(trials, factories, strict=True):
        yield run_trial(trial, problem, factory, **options)


def check_batch(batch_size: int, samples: int, problem: str) -> None:
    """Raise TrialError where a problem has not enough training samples for one batch."""
    if batch_size > samples:
        raise TrialError(
            f"batch_size must be at most the {samples} training samples of {problem}, "
            f"got {batch_size}"
        )


def check_device(device: torch.device) -> None:
    """Raise TrialError where a device is not there."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrialError("device 'cuda' needs a GPU that torch can use, got none: use 'cpu'")


def run_trial(
    trial: Trial,
    problem: Problem,
    factory: OptimizerFactory,
    *,
    data_dir: Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train ``problem`` as ``trial`` says and return what happened, whatever it was.

    Weights, data order, and augmentation and dropout have generators of their own, so that two
    algorithms with one seed start from the same weights and see the same batches. Torch's global
    generator and thread count are restored afterwards.

    Raises:
        MissingData: the data set is not at hand.
        TrialError: there is no such device, the batch is larger than the data, or the model, the
            optimizer or the schedule cannot be built; what goes wrong later is part of the run.
    """
    device = torch.device(trial.device)
    check_device(device)
    splits = load_splits(problem.data, data_dir, device)
    threads = torch.get_num_threads()
    forked = [torch.cuda.current_device()] if device.type == "cuda" else []
    torch.set_num_threads(trial.threads)
    try:
        with torch.random.fork_rng(devices=forked):
            try:
                training = Training(trial, problem, factory, splits, device, progress)
            except TrialError:
                raise
            except Exception as error:
                what = f"cannot set up {trial.problem} with {trial.optimizer}"
                raise TrialError(f"{what}: {_in_words(error)}") from error
            return training.run()
    finally:
        torch.set_num_threads(threads)


def load_splits(
    load: Callable[[Path | None], Splits], data_dir: Path | None, device: torch.device
) -> Splits:
    """Splits on ``device``; the last two asked for are kept, where ``load`` can be hashed."""
    try:
        hash(load)
    except TypeError:
        return load(data_dir).to(device)
    return _kept_splits(load, data_dir, device)


@lru_cache(maxsize=2)
def _kept_splits(
    load: Callable[[Path | None], Splits], data_dir: Path | None, device: torch.device
) -> Splits:
    return load(data_dir).to(device)


class Training:
    """State of one run: model, optimizer, clock, measurements.

    :func:`run_trial` makes one inside its own random state and thread count; whoever makes one
    elsewhere (see ``optiscope.train.timing``) takes care of both.

    Attributes:
        ends_when_diverged: whether a loss that is not finite ends the run; False where only the
            cost of a step matters.
    """

    def __init__(
        self,
        trial: Trial,
        problem: Problem,
        factory: OptimizerFactory,
        splits: Splits,
        device: torch.device,
        progress: Progress | None,
    ) -> None:
        self.trial, self.problem, self.splits, self.device = trial, problem, splits, device
        self.progress = progress
        check_batch(trial.batch_size, len(splits.train), trial.problem)
        self.steps_per_epoch = len(splits.train) // trial.batch_size
        self.horizon = trial.epochs * self.steps_per_epoch
        reset_peak_memory(device)
        self.random = Generators.of(trial.seed, device)
        seed_global_generators(self.random.weights, device)
        model = problem.make_model()
        if trial.initialisation is not None:
            initialise(model, trial.initialisation, targets=splits.train)
        self.model: nn.Module = model.to(device)
        seed_global_generators(self.random.noise, device)
        self.groups = problem.param_groups(self.model)
        self.parameters = [p for group in self.groups for p in group["params"]]
        self.optimizer = self._make_optimizer(factory)
        self.closure_driven = factory.closure
        self.schedule: Schedule | None = None
        if trial.schedule is not None:
            self.schedule = make_schedule(
                trial.schedule, self.optimizer, steps=self.horizon, epochs=trial.epochs
            )
        self.stopping = EarlyStopping.of(trial.early_stopping)
        self.pruning = Pruning.of(trial.pruning)
        check_watched(trial.early_stopping, trial.schedule, problem)
        if trial.clip is not None:
            check_clip(trial.clip)
        self.clock = PhaseClock()
        self.metrics: list[Measurement] = []
        self.step = 0
        self.gradient_evaluations = 0
        self.ends_when_diverged = True
        self.began = perf_counter()

    def _make_optimizer(self, factory: OptimizerFactory) -> Optimizer:
        own_words = ("l2", "lr_scale")
        groups = [{k: v for k, v in g.items() if k not in own_words} for g in self.groups]
        optimizer = factory(groups, horizon=self.horizon, steps_per_epoch=self.steps_per_epoch)
        _scale_rates(optimizer, self.groups)
        if has_modes(optimizer):
            optimizer.train()  # type: ignore[attr-defined]
        return optimizer

    def run(self) -> Run:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        epochs = f"{self.trial.epochs} epoch{'' if self.trial.epochs == 1 else 's'}"
        status, reason = Status.FINISHED, f"reached its horizon of {epochs}"
        try:
            self._train()
        except _Diverged as error:
            status, reason = Status.DIVERGED, str(error)
        except _Ended as error:
            status, reason = error.status, str(error)
        except _CallbackError as error:
            raise error.original from None
        except KeyboardInterrupt:
            status, reason = Status.INTERRUPTED, f"interrupted at step {self.step}"
        except Exception as error:
            diverged = isinstance(error, FloatingPointError) or self._overflows()
            status = Status.DIVERGED if diverged else Status.CRASHED
            reason = f"at step {self.step}: {_in_words(error)}"
        final, best = summarise(self.metrics)
        return Run(
            trial=self.trial,
            status=status,
            reason=reason,
            steps=self.step,
            seconds=self.clock.seconds(),
            counts={
                "gradient_evaluations": self.gradient_evaluations,
                "hessian_products": int(getattr(self.optimizer, "hessian_products", 0)),
            },
            peak_memory_bytes=peak_memory_bytes(self.device),
            environment=environment(self.device),
            started=started,
            metrics=tuple(self.metrics),
            final=final,
            best=best,
        )

    @torch.no_grad()
    def _overflows(self) -> bool:
        """Whether a weight is not finite or as good as that: what was raised is a consequence."""
        try:
            return not all(bool((p.abs() < BEYOND).all()) for p in self.parameters)
        except Exception:  # a device that failed answers nothing any more
            return False

    def _train(self) -> None:
        self.clock.restart()
        self._evaluate(0)
        for epoch in range(1, self.trial.epochs + 1):
            self.train_epoch(epoch)
            self._evaluate(epoch)
            if self.schedule is not None and self.schedule.interval == "epoch":
                self._step_schedule(self.schedule)
            self._check_ends(epoch)

    def train_epoch(self, epoch: int, at_most: int | None = None) -> None:
        """One pass over the training data, or its first ``at_most`` steps; raises _Diverged."""
        size = self.trial.batch_size
        order = torch.randperm(len(self.splits.train), generator=self.random.order)
        batches = order[: self.steps_per_epoch * size].view(self.steps_per_epoch, size)[:at_most]
        look_every = 1 if self.device.type == "cpu" else SYNC_EVERY
        unseen: list[Tensor] = []
        losses: list[float] = []
        for indices in batches.to(self.device):
            inputs, targets = self.splits.train.select(indices)
            if self.splits.augment is not None:
                inputs = self.splits.augment(inputs, self.random.augmentation)
            batch = Batch(in_fast_layout(inputs), targets)
            self.clock.mark("data")
            unseen.append(self._train_step(batch))
            self.step += 1
            if len(unseen) == look_every:
                losses += self._look_at(unseen, epoch)
                unseen.clear()
        if unseen:
            losses += self._look_at(unseen, epoch)
        self._measure(epoch, "batch", {"loss": sum(losses) / len(losses)})

    def _train_step(self, batch: Batch) -> Tensor:
        """One optimizer step; returns the batch's loss at the parameters before it."""
        first_loss: list[Tensor] = []

        def closure() -> Tensor:
            if self.closure_driven:
                self.clock.mark("optimizer")
            self.optimizer.zero_grad()
            loss = self.problem.loss(self.model(batch.inputs), batch.targets).mean()
            if not first_loss:
                first_loss.append(loss.detach())
            penalty = regularization(self.groups)
            objective = loss if penalty is None else loss + penalty
            objective.backward()
            if self.trial.clip is not None:
                clip_gradients(self.parameters, self.trial.clip)
            self.gradient_evaluations += 1
            self.clock.mark("forward_backward")
            return objective

        if self.closure_driven:
            self.optimizer.step(closure)  # type: ignore[arg-type]
        else:
            closure()
            self.optimizer.step()
        if self.schedule is not None and self.schedule.interval == "step":
            self.schedule.scheduler.step()
        self.clock.mark("optimizer")
        return first_loss[0]

    def _look_at(self, unseen: Sequence[Tensor], epoch: int) -> list[float]:
        """Values of the losses [] of the latest steps, once they are known to be finite.

        Raises:
            _Diverged: at the first step whose loss is not finite.
            _Ended: the time is up.
        """
        if len(unseen) == 1:
            losses = [unseen[0].item()]
        else:
            losses = torch.stack(list(unseen)).tolist()
            self.clock.mark("forward_backward")  # the device was waited for
        for i, value in enumerate(losses):
            if not math.isfinite(value) and self.ends_when_diverged:
                self.step += i + 1 - len(losses)
                share = ((self.step - 1) % self.steps_per_epoch + 1) / self.steps_per_epoch
                self._measure(epoch - 1 + share, "batch", {"loss": value})
                raise _Diverged(f"the loss of a training batch became {value} at step {self.step}")
        self._check_time()
        return losses

    def _check_time(self) -> None:
        limit, wall = self.trial.max_seconds, perf_counter() - self.began
        if limit is not None and wall > limit:
            raise _Ended(
                Status.TIMED_OUT, f"took {wall:.1f} s of at most {limit:g} s at step {self.step}"
            )

    def _evaluate(self, epoch: int) -> None:
        """Measure all evaluation sets without disturbing the run's randomness."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.clock.mark("forward_backward")
        self._measure(epoch, "optimizer", optimizer_log(self.optimizer))
        self.clock.mark("instruments")
        with (
            evaluation_mode(self.optimizer),
            torch.random.fork_rng(
                devices=[torch.cuda.current_device()] if self.device.type == "cuda" else []
            ),
        ):
            for split, samples in self.splits.evaluation().items():
                seed_global_generators(self.random.noise, self.device)
                values = evaluate(self.problem, self.model, samples, self.device)
                self._measure(epoch, split, values)
            with torch.no_grad():
                penalty = regularization(self.groups)
            if penalty is not None:
                self._measure(epoch, "penalty", {"loss": penalty.item()})
        self.clock.mark("evaluation")
        latest = self._latest()
        if self.progress is not None:
            try:
                self.progress(epoch / self.trial.epochs, latest)
            except Exception as error:  # the caller's, not the algorithm's
                raise _CallbackError(error) from None
            self.clock.restart()  # the caller's time
        for split in self.splits.evaluation():
            if not math.isfinite(latest[f"{split}_loss"]):
                value = latest[f"{split}_loss"]
                raise _Diverged(f"the {split} loss became {value} at step {self.step}")

    def _check_ends(self, epoch: int) -> None:
        if epoch == self.trial.epochs:
            return
        if self.stopping is not None:
            reason = self.stopping.update(self._latest())
            if reason is not None:
                raise _Ended(Status.STOPPED, f"{reason} at step {self.step}")
        if self.pruning is not None:
            reason = self.pruning.update(epoch, self._latest())
            if reason is not None:
                raise _Ended(Status.STOPPED, f"{reason} at step {self.step}")
        self.clock.mark("instruments")
        self._check_time()

    def _step_schedule(self, schedule: Schedule) -> None:
        if schedule.metric is None:
            schedule.scheduler.step()
        else:
            schedule.scheduler.step(self._latest()[schedule.metric])  # type: ignore[arg-type]
        self.clock.mark("optimizer")

    def _measure(self, epoch: float, split: str, values: Mapping[str, float]) -> None:
        self.metrics += [Measurement(self.step, epoch, split, n, v) for n, v in values.items()]

    def _latest(self) -> dict[str, float]:
        return {f"{m.split}_{m.name}": m.value for m in self.metrics}


def _scale_rates(optimizer: Optimizer, declared: Sequence[ParamGroup]) -> None:
    """Multiply each group's learning rate by what its parameters declare as ``lr_scale``.

    Groups are matched by their parameters, because an optimizer may regroup them.

    Raises:
        TrialError: the optimizer joined parameters of different scales, or has no ``lr``.
    """
    scales = {id(p): float(g.get("lr_scale", 1.0)) for g in declared for p in g["params"]}
    for made in optimizer.param_groups:
        found = {scales[id(p)] for p in made["params"] if id(p) in scales}
        if found <= {1.0}:
            continue
        if len(found) > 1 or "lr" not in made:
            raise TrialError(
                f"expected an optimizer with a learning rate for each parameter group, got "
                f"{type(optimizer).__name__}: choose another one for this problem"
            )
        made["lr"] = made["lr"] * found.pop()


def _in_words(error: Exception) -> str:
    """An unexpected error in one line, with the place it came from."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({Path(where.filename).name}:{where.lineno})"
