"""The training loop: it trains one trial and emits its run."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from time import perf_counter
from types import CodeType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optiscope.data.provenance import noted
from optiscope.data.samples import Batch, Splits, batches
from optiscope.errors import OptiscopeError, describe
from optiscope.monitor.instrument import (
    EndRun,
    EpochView,
    Instrument,
    StartView,
    StepView,
)
from optiscope.problems.initialisation import initialise
from optiscope.problems.problem import ParamGroup, Problem, regularization
from optiscope.records import Measurement, Run, Status, Trial, summarise
from optiscope.train.checkpoint import Checkpoint
from optiscope.train.clock import PhaseClock
from optiscope.train.deadline import TimeUp, deadline, raised_by_itself, sees_ctrl_c
from optiscope.train.device import (
    backend,
    in_fast_layout,
    peak_memory_bytes,
    reset_peak_memory,
    synchronize,
)
from optiscope.train.environment import environment
from optiscope.train.evaluation import evaluate
from optiscope.train.first_error import hint_on
from optiscope.train.gradient import BatchGradient, LossScale, gradient_faults, parts_of
from optiscope.train.isolation import isolated
from optiscope.train.observers import (
    BatchLoss,
    EvaluationLoss,
    InstrumentError,
    Instruments,
    Moment,
    OptimizerLog,
    Progress,
    ProgressReport,
)
from optiscope.train.recipe import check_recipe
from optiscope.train.resume import identity_of, restore, session, state_of
from optiscope.train.schedule import Schedule, make_schedule
from optiscope.train.seeds import Generators, preserved_generators, seed_global_generators
from optiscope.train.step import TrainingStep, evaluation_mode, has_modes
from optiscope.train.stopping import EarlyStopping, Pruning
from optiscope.train.weights import WeightKeeper

if TYPE_CHECKING:
    from optiscope.objective.risk import EmpiricalRisk

__all__ = ["OptimizerFactory", "Progress", "TrialError", "run_trial", "run_trials"]

BEYOND = 1e19  # of a weight's size: about the root of the largest number in float32
SYNC_EVERY = 50  # steps between looks at the loss on a GPU, where a look waits for the device


class OptimizerFactory(Protocol):
    """Builds the optimizer of a trial."""

    @property
    def closure(self) -> bool:
        """Whether ``step`` must be given a closure."""
        ...

    def __call__(
        self,
        groups: Sequence[ParamGroup],
        *,
        horizon: int,
        steps_per_epoch: int,
        model: nn.Module | None = None,
    ) -> Optimizer:
        """Optimizer of ``groups`` for a horizon in steps; raises ValueError on bad settings."""
        ...


class TrialError(OptiscopeError, ValueError):
    """A trial that cannot even begin; the message is one line that says why and what to do."""


def run_trials(
    trials: Sequence[Trial],
    problem: Problem,
    factories: Sequence[OptimizerFactory],
    **options: Any,
) -> Iterator[Run]:
    """Runs of several trials of one problem, in order.

    Trials that say ``together`` train in one batch (``optiscope.train.together``), and have
    ``data_dir`` as their only option; others run one after the other, with the options of
    :func:`run_trial`.
    """
    if any(trial.together for trial in trials):
        from optiscope.train.together import run_together

        yield from run_together(trials, problem, factories, **options)
        return
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
    if device.type == "cpu":
        return
    if not backend(device).is_available():
        raise TrialError(
            f"device {str(device)!r} needs a GPU that torch can use, got none: use 'cpu'"
        )
    count = backend(device).device_count()
    if device.index is not None and device.index >= count:
        raise TrialError(f"device {str(device)!r} is not there: torch sees {count} of its kind")


def run_trial(
    trial: Trial,
    problem: Problem,
    factory: OptimizerFactory,
    *,
    data_dir: Path | None = None,
    progress: Progress | None = None,
    instruments: Sequence[Instrument] = (),
    checkpoint: Checkpoint | None = None,
    weights: WeightKeeper | None = None,
) -> Run:
    """Train ``problem`` as ``trial`` says and return what happened, whatever it was.

    Weights, data order, and augmentation and dropout have generators of their own, so that two
    algorithms with one seed start from the same weights and see the same batches. Torch's global
    generator and thread count are restored afterwards.

    Args:
        trial: what to do.
        problem: the problem that the trial names.
        factory: makes the optimizer that the trial names.
        data_dir: where the data sets are.
        progress: told how far the run is after each evaluation; its errors go on to the caller.
        instruments: watch the run; their numbers are part of it, their errors go on to the caller.
        checkpoint: where the run saves its state, and from where it goes on. A signal then ends the
            run as interrupted once its state is saved.
        weights: keeps the model's state at chosen epochs, as it is evaluated.

    Raises:
        MissingData: the data set is missing.
        TrialError: there is no such device, the batch is larger than the data, or the model, the
            optimizer or the schedule cannot be built; what goes wrong later is part of the run.
    """
    device = torch.device(trial.device)
    check_device(device)
    splits = load_splits(problem.data, data_dir, device)
    watching = [ProgressReport(progress)] if progress is not None else []
    with isolated(trial.threads, device):
        try:
            with deadline(patience(trial)):
                training = Training(
                    trial, problem, factory, splits, device, [*watching, *instruments]
                )
                training.checkpoint, training.weights = checkpoint, weights
        except TimeUp:
            reason = f"took more than {trial.max_seconds:g} s to set up"
            return Run.unstarted(trial, Status.TIMED_OUT, reason)
        except TrialError:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and sees_ctrl_c():
                raise
            what = f"cannot set up {trial.problem} with {trial.optimizer}"
            raise TrialError(f"{what}: {_in_words(error)}") from error
        return training.run()


def patience(trial: Trial, spent: float = 0.0) -> float | None:
    """Seconds after which a step of a trial counts as hanging, of which some are spent.

    A step that ends soon after ``max_seconds`` may: the run ends after it.
    """
    limit = trial.max_seconds
    return None if limit is None else max(limit + max(1.0, 0.1 * limit) - spent, 0.0)


def load_splits(
    load: Callable[[Path | None], Splits], data_dir: Path | None, device: torch.device
) -> Splits:
    """Splits on ``device``; the last two asked for are kept, where ``load`` can be hashed."""
    try:
        hash(load)
    except TypeError:
        return _loaded(load, data_dir, device)
    return _kept_splits(load, data_dir, device)


@lru_cache(maxsize=2)
def _kept_splits(
    load: Callable[[Path | None], Splits], data_dir: Path | None, device: torch.device
) -> Splits:
    return _loaded(load, data_dir, device)


def _loaded(
    load: Callable[[Path | None], Splits], data_dir: Path | None, device: torch.device
) -> Splits:
    with noted() as other_files:
        splits: object = load(data_dir)
    if not isinstance(splits, Splits):
        raise TrialError(
            f"data of a problem must return Splits, got {type(splits).__name__}: use "
            "Splits.of(train, valid, test)"
        )
    return replace(splits.to(device), other_files=tuple(other_files))


class Training:
    """State of one run: model, optimizer, clock, measurements.

    :func:`run_trial` makes one inside its own random state and thread count; whoever makes one
    elsewhere (see ``optiscope.train.timing``) takes care of both.

    Args:
        trial, problem, factory: as for :func:`run_trial`.
        splits: the problem's data, on the device.
        device: where to train.
        instruments: the caller's; they see a step or an evaluation before the loop's own do.
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
        instruments: Sequence[Instrument] = (),
        *,
        ends_when_diverged: bool = True,
    ) -> None:
        self.trial, self.problem, self.splits, self.device = trial, problem, splits, device
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
        self.schedule: Schedule | None = None
        if trial.schedule is not None:
            self.schedule = make_schedule(
                trial.schedule, self.optimizer, steps=self.horizon, epochs=trial.epochs
            )
        check_recipe(trial.recipe, problem)
        gradient = self._batch_gradient(factory)
        own = self._own_instruments(ends_when_diverged, gradient)
        self.instruments = Instruments(instruments, list(own))
        self.clock = PhaseClock()
        self.stepping = TrainingStep(
            self.optimizer,
            gradient,
            self.parameters,
            closure_driven=factory.closure,
            pass_loss=getattr(factory, "loss", False),
            clip=trial.clip,
            needs=self.instruments.needs,
            clock=self.clock,
        )
        self.metrics: list[Measurement] = []
        self.latest: dict[str, float] = {}
        self.step, self.earlier_products = 0, 0
        self.epoch, self.position = 1, 0  # the epoch that is trained, and its steps so far
        self.order_state = self.random.order.get_state()  # before the epoch's order was drawn
        self.checkpoint: Checkpoint | None = None
        self.weights: WeightKeeper | None = None
        self.sessions = [session(0)]
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.began = perf_counter()

    def _make_optimizer(self, factory: OptimizerFactory) -> Optimizer:
        own_words = ("l2", "lr_scale")
        groups = [{k: v for k, v in g.items() if k not in own_words} for g in self.groups]
        optimizer = factory(
            groups, horizon=self.horizon, steps_per_epoch=self.steps_per_epoch, model=self.model
        )
        _scale_rates(optimizer, self.groups)
        if has_modes(optimizer):
            optimizer.train()
        return optimizer

    def _batch_gradient(self, factory: OptimizerFactory) -> BatchGradient:
        """How gradients are computed; raises TrialError where that cannot be."""
        recipe, create_graph = self.trial.recipe, getattr(factory, "create_graph", False)
        for _, message in gradient_faults(
            recipe, self.trial.optimizer, closure=factory.closure, create_graph=create_graph
        ):
            raise TrialError(message)
        if recipe.accumulate is not None:
            first = torch.arange(self.trial.batch_size, device=self.device)
            try:
                list(parts_of(self.splits.train.select(first), recipe.accumulate))
            except ValueError as error:
                raise TrialError(str(error)) from None
        return BatchGradient(
            self.problem, self.model, self.groups, recipe, self.device, create_graph=create_graph
        )

    def _own_instruments(
        self, ends_when_diverged: bool, gradient: BatchGradient
    ) -> Iterator[Instrument]:
        """Those that every run has, in the order in which they may end it."""
        look_every = 1 if self.device.type == "cpu" else SYNC_EVERY
        yield BatchLoss(look_every, ends_run=ends_when_diverged)
        yield OptimizerLog()
        yield EvaluationLoss()
        if gradient.scaler is not None:
            yield LossScale(gradient)
        if (stopping := EarlyStopping.of(self.trial.early_stopping)) is not None:
            yield stopping
        if (pruning := Pruning.of(self.trial.pruning)) is not None:
            yield pruning

    def run(self) -> Run:
        """Train to the horizon or to whatever ends it sooner."""
        # As it is set for the trial, whatever that does to it.
        where = environment(self.device, self.splits.other_files)

        def train() -> None:
            spent = perf_counter() - self.began
            listening = nullcontext() if self.checkpoint is None else self.checkpoint.listening()
            with closing(self.instruments), deadline(patience(self.trial, spent)), listening:
                self._train()

        return self.record(where, *(self.attempt(train) or self.horizon_reached()))

    def horizon_reached(self) -> tuple[Status, str]:
        """How a run ends that nothing ends sooner."""
        epochs = f"{self.trial.epochs} epoch{'' if self.trial.epochs == 1 else 's'}"
        return Status.FINISHED, f"reached its horizon of {epochs}"

    def attempt(self, act: Callable[[], object]) -> tuple[Status, str] | None:
        """Do a part of the run; how the run ends where that ends it, None where it goes on.

        Errors of instruments that the caller handed over go on to the caller.
        """
        try:
            act()
        except EndRun as end:
            return end.status, end.reason
        except TimeUp:
            return Status.TIMED_OUT, self._out_of_time("after")
        except InstrumentError as error:
            raise error.original from None
        except BaseException as error:
            return self._outcome_of(error)
        return None

    def record(self, where: Mapping[str, Any], status: Status, reason: str) -> Run:
        """The run, as it stands; ``where`` is its environment."""
        final, best = summarise(self.metrics)
        return Run(
            trial=self.trial,
            status=status,
            reason=reason,
            steps=self.step,
            seconds=self.clock.seconds(),
            counts=self.counts(),
            peak_memory_bytes=peak_memory_bytes(self.device),
            environment={**where, "sessions": self.sessions},
            started=self.started,
            metrics=tuple(self.metrics),
            final=final,
            best=best,
        )

    def _outcome_of(self, error: BaseException) -> tuple[Status, str]:
        """What an error says of the run; also one that was meant to end the process."""
        if isinstance(error, KeyboardInterrupt):
            take = TrainingStep.take.__code__
            closure = next(c for c in take.co_consts if isinstance(c, CodeType))
            if sees_ctrl_c() and not raised_by_itself(error, take, but=closure):
                return Status.INTERRUPTED, f"interrupted at step {self.step}"
        diverged = isinstance(error, Exception) and (
            isinstance(error, FloatingPointError) or self._overflows()
        )
        status = Status.DIVERGED if diverged else Status.CRASHED
        hint = hint_on(error, self.splits.train, self.model) if self.step == 0 else ""
        said = f"at step {self.step}: {_in_words(error)}"
        return status, f"{said}; {hint}" if hint else said

    def _out_of_time(self, where: str) -> str:
        wall = perf_counter() - self.began
        return f"took {wall:.1f} s of at most {self.trial.max_seconds:g} s {where} step {self.step}"

    def counts(self) -> dict[str, int]:
        """Gradient evaluations and Hessian products so far."""
        return {
            "gradient_evaluations": self.stepping.gradient_evaluations,
            "hessian_products": self.earlier_products
            + int(getattr(self.optimizer, "hessian_products", 0)),
        }

    @torch.no_grad()
    def _overflows(self) -> bool:
        """Whether a weight is not finite or as good as that: what was raised is a consequence."""
        try:
            return not all(bool((p.abs() < BEYOND).all()) for p in self.parameters)
        except Exception:  # a device that failed answers nothing any more
            return False

    def _train(self) -> None:
        self.begin()
        while self.epoch <= self.trial.epochs:
            self.train_epoch()
            self.close_epoch()

    def begin(self) -> None:
        """All that comes before the first step; goes on from a saved state where there is one."""
        self.clock.restart()
        start = StartView(
            self.model,
            self.optimizer,
            self.parameters,
            self.trial.epochs,
            self.steps_per_epoch,
            self.trial.batch_size,
        )
        self._call("on_start", start)
        if not self._resumed():
            if self.weights is not None:
                self.weights.begin()
            self._end_epoch(0)

    def close_epoch(self) -> None:
        """All that follows an epoch's last step."""
        self.position = 0
        self._end_epoch(self.epoch)
        if self.schedule is not None and self.schedule.interval == "epoch":
            self._step_schedule(self.schedule)
        self.epoch += 1
        if self.epoch <= self.trial.epochs:
            self._check_time()
            self._save(epoch_end=True)

    def _resumed(self) -> bool:
        """Go on from a saved state, where there is one of this trial."""
        state = None if self.checkpoint is None else self.checkpoint.load(identity_of(self))
        if state is not None:
            restore(self, state)
            self.clock.restart()
        return state is not None

    def _save(self, *, epoch_end: bool) -> None:
        """Save the state when it is time, and end the run where it was asked to leave."""
        if self.checkpoint is None:
            return
        if self.checkpoint.due(epoch_end=epoch_end):
            self.checkpoint.save(lambda: state_of(self))
            self.clock.mark("instruments")
        if self.checkpoint.leaving:
            raise EndRun(Status.INTERRUPTED, f"interrupted at step {self.step}")

    def train_epoch(self, at_most: int | None = None) -> None:
        """One pass over the training data, or its first ``at_most`` steps; raises EndRun."""
        for batch in self.epoch_batches(at_most):
            self.take(batch)
        self.position = 0

    def epoch_batches(self, at_most: int | None = None) -> Iterator[Batch]:
        """The batches of an epoch, from where it stands; each is for :meth:`take`."""
        size = self.trial.batch_size
        self.order_state = self.random.order.get_state()
        order = torch.randperm(len(self.splits.train), generator=self.random.order)
        steps = order[: self.steps_per_epoch * size].view(self.steps_per_epoch, size)[:at_most]
        train = self.splits.train
        workers = torch.Generator().manual_seed(self.random.noise ^ (self.step - self.position))
        skipped = self.position if getattr(train, "workers", 0) else 0  # their draws count
        steps = steps[self.position - skipped :].to(self.device)
        for inputs, targets in islice(batches(train, steps, workers), skipped, None):
            if self.splits.augment is not None:
                inputs = self.splits.augment(inputs, self.random.augmentation)
            batch = Batch(in_fast_layout(inputs), targets)
            self.clock.mark("data")
            yield batch

    def take(self, batch: Batch) -> None:
        """Take a step, and show it to the instruments; raises EndRun."""
        loss = self.stepping.take(batch)
        if self.schedule is not None and self.schedule.interval == "step":
            self.schedule.scheduler.step()
        self.clock.mark("optimizer")
        self.step += 1
        self._call("on_step", self._step_view(batch, loss))
        self._check_time()
        self.position += 1
        self._save(epoch_end=False)

    def _step_view(self, batch: Batch, loss: Tensor) -> StepView:
        return StepView(
            self.step,
            self._epoch_of(self.step),
            loss,
            batch.inputs,
            batch.targets,
            self.model,
            self.optimizer,
            self.parameters,
            self.stepping.copies,
            make_risk=lambda: self._risk_of(batch),
            wait=self._wait,
        )

    def _risk_of(self, batch: Batch) -> EmpiricalRisk:
        """Mean loss of a batch as a function of the parameters."""
        from optiscope.objective.risk import EmpiricalRisk

        return EmpiricalRisk(self.model, self.problem.loss, [(batch.inputs, batch.targets)])

    def _epoch_of(self, step: int) -> float:
        """Share of epochs done after a step."""
        whole, rest = divmod(step - 1, self.steps_per_epoch)
        return whole + (rest + 1) / self.steps_per_epoch

    def _end_epoch(self, epoch: int) -> None:
        """Instruments, and between them all evaluation sets, without disturbing randomness."""
        self._wait()
        view = EpochView(
            epoch,
            self.trial.epochs,
            self.step,
            self.model,
            self.optimizer,
            self.parameters,
            self.latest,
            tuple(self.splits.evaluation()),
        )
        self._call("on_epoch", view)
        with (
            preserved_generators(self.device),
            evaluation_mode(self.optimizer, self.model, self._plain_batches, self.problem.losses),
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
            if self.weights is not None:
                self.weights.look(epoch, self.model)
        self._call("on_evaluation", view)

    def _plain_batches(self) -> Iterator[Batch]:
        """The training batches in the data's order, not augmented."""
        train = self.splits.train
        for indices in torch.arange(len(train), device=self.device).split(self.trial.batch_size):
            if len(indices) == self.trial.batch_size:
                batch = train.select(indices)
                yield Batch(in_fast_layout(batch.inputs), batch.targets)

    def _call(self, moment: Moment, view: StartView | StepView | EpochView) -> None:
        """Show each instrument a moment of the run, and record what it measures."""
        epoch = 0.0 if isinstance(view, StartView) else view.epoch
        try:
            for instrument in self.instruments.at[moment]:
                values = instrument.look(view)
                if values:
                    self._measure(epoch, instrument.name, values)
        except EndRun as end:
            if end.step is not None:
                self.step, epoch = end.step, self._epoch_of(end.step)
            self._measure(epoch, instrument.name, end.values)
            raise
        self.clock.mark("instruments")

    def _wait(self) -> None:
        """Wait for the device; what it still had to do was training."""
        if self.device.type != "cpu":
            synchronize(self.device)
            self.clock.mark("forward_backward")

    def _check_time(self) -> None:
        limit, wall = self.trial.max_seconds, perf_counter() - self.began
        if limit is not None and wall > limit:
            raise EndRun(Status.TIMED_OUT, self._out_of_time("at"))

    def _step_schedule(self, schedule: Schedule) -> None:
        schedule.step(self.latest)
        self.clock.mark("optimizer")

    def _measure(self, epoch: float, split: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.metrics.append(Measurement(self.step, epoch, split, name, value))
            self.latest[f"{split}_{name}"] = value


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


def _in_words(error: BaseException) -> str:
    """An unexpected error in one line, with the place it came from."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{describe(error)} ({Path(where.filename).name}:{where.lineno})"
