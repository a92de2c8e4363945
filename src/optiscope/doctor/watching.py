"""``optiscope.watch``: one line that watches a training loop and says what is wrong with it."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from torch import nn

from optiscope.doctor.causes import rank
from optiscope.doctor.finding import Finding
from optiscope.doctor.rule import Rule
from optiscope.doctor.rules import RULES
from optiscope.doctor.samples import Samples, first_samples
from optiscope.errors import OptiscopeError, shorten
from optiscope.hints import did_you_mean
from optiscope.monitor.budget import Budget
from optiscope.monitor.events import Forward, LossCall, Observer, WatchedStep
from optiscope.monitor.measures import LEVELS, MEASURES, Histogram, chosen_measures
from optiscope.monitor.series import Series
from optiscope.monitor.series_export import SeriesExport
from optiscope.monitor.session import Session, StopWatching
from optiscope.monitor.unwrap import unwrap_optimizer
from optiscope.report.cockpit.page import write_page
from optiscope.report.cockpit.terminal import LivePanel, panel

__all__ = ["FindingError", "FindingWarning", "Watch", "watch"]

logger = logging.getLogger("optiscope")

PAGE_SECONDS = 5.0
OnFinding = Literal["warn", "log", "raise"] | Callable[[Finding], None]


class FindingWarning(UserWarning):
    """A finding of severity warning or error."""


class FindingError(OptiscopeError, StopWatching):
    """Raised at a finding of severity error with ``on_finding="raise"``."""


class _WatchedLoss:
    """A loss function whose calls the watch sees."""

    def __init__(self, function: Callable[..., Any], session: Session) -> None:
        self.function, self.session = function, session

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.session.call_loss(self.function, args, kwargs)


class _Recorder(Observer):
    """Tells a watch of every step."""

    def __init__(self, watch: Watch) -> None:
        self.name = "page"
        self.watch = watch
        self.first: Forward | None = None

        self.step = -1
        self.losses: list[tuple[float, int]] = []

    def forward(self, forward: Forward) -> None:
        """Keep a few samples of the first training batch as the network gets them."""
        if forward.grad and forward.training and self.watch._samples is None:
            self.watch._samples = first_samples(forward)
            self.first = forward
        if not forward.grad and forward.loss is not None:
            self._evaluated(float(forward.loss), forward.size)

    def loss(self, call: LossCall) -> None:
        """Losses without a gradient are those of an evaluation; note the first labels."""
        if call.grad:
            samples = self.watch._samples
            if samples is not None and samples.labels is None and call.forward is self.first:
                self.watch._samples = samples.with_labels(call.target)
            self.first = None
        elif call.value is not None and call.value.numel() == 1:
            prediction = call.prediction
            size = len(prediction) if prediction is not None and prediction.ndim else 1
            self._evaluated(float(call.value), size)

    def _evaluated(self, loss: float, size: int) -> None:
        step = self.watch.session.step
        if step != self.step:
            self.settle()
        self.step = step
        self.losses.append((loss, max(size, 1)))

    def settle(self) -> None:
        """Add the evaluation that is over to the series: the mean loss of its samples."""
        if self.losses:
            total = sum(size for _, size in self.losses)
            mean = sum(loss * size for loss, size in self.losses) / total
            self.watch.series.add("evaluation loss", self.step, mean)
            self.losses = []

    def after_step(self, view: WatchedStep) -> None:
        """Pass it on."""
        self.settle()
        self.watch._after_step(view)

    def finish(self) -> None:
        """The last evaluation is over too."""
        self.settle()


class Watch:
    """A watched training loop: its findings so far, its page, and the way to stop watching."""

    def __init__(
        self,
        session: Session,
        rules: Sequence[Rule],
        *,
        expects: Sequence[str] = (),
        on_finding: OnFinding = "warn",
        instruments: str | list[str] = "light",
        out: Path | None = None,
        live: bool = False,
    ) -> None:
        self.session = session
        self.series = Series()
        self.budget = session.budget
        self.out = out
        self.title: str | None = None  # of the page; by default the stem of its file
        self._started = time.perf_counter()
        self._seconds = 0.0
        self._written = 0.0
        self._exports: list[SeriesExport] = []
        self._live = LivePanel() if live else None
        self._samples: Samples | None = None
        self._losses = 0
        self._facts = _facts(session)
        self.measures = chosen_measures(instruments, self.series, self.budget)
        self._expects = tuple(expects)
        self._on_finding = on_finding
        self._findings: dict[str, Finding] = {}
        self._closed = False
        for rule in rules:
            rule.sink = self._collect
        session.observe([_Recorder(self), *rules, *self.measures])

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong so far, causes first; notes last."""
        return rank(self._findings.values())

    @property
    def failures(self) -> tuple[str, ...]:
        """Rules and instruments that failed and were switched off, with the reason."""
        return tuple(self.session.failures)

    def loss(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The loss function, watched: use what is returned in the loop."""
        self.session.loss_function = function
        return _WatchedLoss(function, self.session)

    def _collect(self, finding: Finding) -> None:
        if finding.is_alarm and finding.rule in self._expects:
            finding = finding.as_note("expected")
        known = self._findings.get(finding.rule)
        if known is not None:
            where = dict.fromkeys((*known.where, *finding.where))
            latest = finding if finding.is_alarm or not known.is_alarm else known
            self._findings[finding.rule] = replace(
                latest,
                step=known.step if known.is_alarm == latest.is_alarm else latest.step,
                last_step=max(finding.step, known.last_step),
                count=known.count + 1,
                where=tuple(where)[:50],
            )
            if known.is_alarm or not finding.is_alarm:
                return
        else:
            self._findings[finding.rule] = finding
        self._announce(finding)

    def _announce(self, finding: Finding) -> None:
        action = self._on_finding
        if callable(action):
            try:
                action(finding)
            except Exception as error:
                self.session.raised_by_user = error
                raise
        elif not finding.is_alarm:
            logger.info("%s", finding)
        elif action == "log":
            logger.warning("%s", finding)
        elif action == "raise" and finding.severity == "error":
            raise FindingError(str(finding))
        else:
            warnings.warn(str(finding), FindingWarning, stacklevel=2)

    def close(self) -> None:
        """Stop watching: every hook is removed, the findings stay. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._seconds = time.perf_counter() - self._started
            self.session.close()
            self._record_losses()
            self._renew()
            if self._live is not None:
                self._live.stop(self.data())
            for one in self._exports:
                one.finish(self.findings)
            self._exports.clear()

    # -- what is shown

    def data(self) -> dict[str, Any]:
        """Everything that the page shows, as plain values."""
        seconds = self._seconds or time.perf_counter() - self._started
        spent = self.budget.hooks
        return {
            "title": self.title
            or (self.out.stem if self.out is not None and self.out.suffix else "Watch"),
            "state": "finished" if self._closed else "training",
            "step": self.session.step,
            "seconds": round(seconds, 1),
            **self._facts,
            "prior": None,
            "findings": [_plain(f) for f in self.findings],
            "series": self.series.to_dict(),
            "pictures": [] if self._samples is None else self._samples.pictures,
            "histogram": next((m.latest for m in self.measures if isinstance(m, Histogram)), {}),
            "costs": self.budget.table(),
            "budget": f"Hooks, rules and instruments took {spent:.2f} s, "
            f"{spent / max(seconds, 1e-9):.1%} of the time; the budget is "
            f"{self.budget.share:.0%}. Intervals grow until it is kept.",
            "trouble": [
                *(f"{m.name}: {m.trouble}" for m in self.measures if m.trouble),
                *self.failures,
            ],
        }

    def page(self, path: str | Path | None = None) -> Path:
        """Write the page now and return its path.

        Without a path it goes where ``out`` says (a folder gets ``watch.html``), else to
        ``optiscope-watch.html`` in the current folder.
        """
        self._record_losses()
        place = Path(path) if path is not None else self.out or Path("optiscope-watch.html")
        if place.suffix != ".html":
            place = place / "watch.html"
        return write_page(place, self.data())

    def export(
        self, to: str, where: str | Path | None = None, *, live: bool = True, name: str = ""
    ) -> None:
        """Send series and findings to ``tensorboard``, ``wandb`` or ``mlflow``.

        ``where`` is a folder, or MLflow's tracking address [default: a folder named after the
        program]. While the run goes on, what is new follows every few seconds until the watch is
        closed; ``live=False`` sends what there is and closes the exported run. Raises
        ``ExportError`` if the library is not installed or the place cannot be written.
        """
        self._record_losses()
        name = name or time.strftime("watch %Y-%m-%d %H.%M.%S")
        one = SeriesExport(to, where or to, name=name, settings=self._facts)
        one.send(self.series, self.findings)
        if live and not self._closed:
            self._exports.append(one)
        else:
            one.finish(self.findings)

    def _renew(self) -> None:
        """Renew the page and send what is new to exports."""
        if self.out is not None:
            self.page()
        for one in self._exports:
            one.send(self.series, self.findings)
        self._written = time.perf_counter()

    def print(self) -> None:
        """Print verdict, findings and latest figures on the terminal."""
        from rich.console import Console

        self._record_losses()
        Console().print(panel(self.data()))

    def _record_losses(self) -> None:
        values = self.session.loss_values
        for step, value in values.since(self._losses):
            self.series.add("loss", step, value)
        self._losses = values.total

    def _after_step(self, view: WatchedStep) -> None:
        """Record rate and losses; renew the page every few seconds."""
        if view.index:
            return
        self.budget.step(view.number)
        if view.tick:
            self.series.add("rate", view.number, view.rates[0])
            self._record_losses()
            if self._live is not None:
                self._live.update(self.data)
            late = time.perf_counter() - self._written > PAGE_SECONDS
            if late and (self.out is not None or self._exports):
                self._renew()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        alarms = sum(f.is_alarm for f in self._findings.values())
        state = "closed" if self._closed else "watching"
        return f"<Watch: {state}, step {self.session.step}, {alarms} alarms>"


def watch(
    model: nn.Module,
    optimizer: Any,
    loss: Any = None,
    *,
    scheduler: Any = None,
    horizon: int | None = None,
    every: int = 10,
    budget: float = 0.05,
    instruments: str | Iterable[str] = "light",
    rules: str | Iterable[str] = "all",
    expects: str | Iterable[str] = (),
    out: str | Path | None = None,
    live: bool = False,
    on_finding: OnFinding = "warn",
) -> Watch:
    """Watch a training loop by hooks alone and report what is wrong with it.

    ``model`` is what the loop calls (wrapped or not), ``optimizer`` one or several optimizers,
    ``loss`` the criterion (a module; for a function use ``loss_fn = watch.loss(loss_fn)``).
    ``horizon`` is the number of steps planned, ``every`` the interval of looks in steps.
    ``instruments`` is "light" (norms, activations), "noise" (also alpha and the gradient tests),
    "full" (also histogram and curvature) or names of instruments; together they take at most the
    share ``budget`` of the time. ``out`` is where the page is kept up to date (a file or a folder);
    ``live`` keeps verdict and figures up to date on the terminal (nothing where there is none).
    ``expects`` names rules whose findings are meant: they become notes. ``on_finding`` says what
    happens at a finding: a warning, a log line, an error, or a call of yours.

    The run is bit for bit the same with and without it. Raises ``TypeError`` or ``OptiscopeError``
    on arguments that cannot be watched.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}: "
            "pass the module that the loop calls"
        )
    many = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
    if not many:
        raise OptiscopeError("expected at least one optimizer, got none: pass optimizer=...")
    schedulers = scheduler if isinstance(scheduler, list | tuple) else [scheduler]
    expected = [expects] if isinstance(expects, str) else list(expects)
    known = [name for rule in RULES for name in rule.names()]
    for name in expected:
        if name not in known:
            raise OptiscopeError(
                f"expects names no rule {shorten(name)}; {did_you_mean(name, known)}"
            )
    level: str | list[str]
    if isinstance(instruments, str) and instruments in LEVELS:
        level = instruments
    else:
        level = [instruments] if isinstance(instruments, str) else list(instruments)
        for name in level:
            if name not in MEASURES:
                raise OptiscopeError(
                    f"no instrument is called {shorten(name)}; "
                    f"{did_you_mean(name, [*LEVELS, *MEASURES])}"
                )
    if not 0 <= budget <= 1:
        raise OptiscopeError(f"budget is a share of the time in [0, 1], got {shorten(budget)}")
    session = Session(
        model,
        [unwrap_optimizer(o) for o in many],
        loss,
        every=every,
        schedulers=[s for s in schedulers if s is not None],
        horizon=horizon,
        budget=Budget(budget, max(1, every)),
    )
    return Watch(
        session,
        [rule() for rule in _chosen(rules)],
        expects=expected,
        on_finding=on_finding,
        instruments=level,
        out=None if out is None else Path(out),
        live=live,
    )


def _facts(session: Session) -> dict[str, str]:
    model = session.model
    count = sum(p.numel() for p in model.parameters())
    optimizers = ", ".join(type(o).__name__ for o in session.optimizers)
    return {"model": f"{type(model).__name__}, {count:,} parameters", "optimizer": optimizers}


def _plain(finding: Finding) -> dict[str, Any]:
    """A finding for JSON: numbers that are not finite become None."""
    values = finding.to_dict()
    for key in ("measured", "threshold"):
        values[key] = {k: v if math.isfinite(v) else None for k, v in values[key].items()}
    return values


def _chosen(rules: str | Iterable[str]) -> list[type[Rule]]:
    """Rule classes by name of rule or family."""
    if rules == "all":
        return list(RULES)
    names = [rules] if isinstance(rules, str) else list(rules)
    if names == ["none"]:
        return []
    known = {name for rule in RULES for name in (*rule.names(), rule.family)}
    for name in names:
        if name not in known:
            raise OptiscopeError(f"no rule is called {shorten(name)}; {did_you_mean(name, known)}")
    return [r for r in RULES if set(names) & {*r.names(), r.family}]
