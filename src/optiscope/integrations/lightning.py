"""A Lightning callback: the watch on a trainer's module and optimizers."""

from __future__ import annotations

from typing import Any

from optiscope.doctor.watching import Watch, watch

__all__ = ["WatchCallback"]


def _base() -> type:
    """The callback class of whichever Lightning is installed."""
    try:
        from lightning.pytorch.callbacks import Callback
    except ImportError:
        from pytorch_lightning.callbacks import Callback
    base: type = Callback
    return base


class WatchCallback(_base()):  # type: ignore[misc]
    """``Trainer(callbacks=[WatchCallback()])``: findings in ``callback.findings``.

    ``options`` are those of :func:`optiscope.watch`. The module's own loss is not seen as a module
    unless ``loss`` names the attribute that holds it; most rules need none. Loops and strategies
    are left alone.
    """

    def __init__(self, *, loss: str | None = None, **options: Any) -> None:
        super().__init__()
        self._loss, self._options = loss, options
        self.watch: Watch | None = None

    @property
    def findings(self) -> Any:
        """What the watch has found, causes first."""
        return () if self.watch is None else self.watch.findings

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach to what ``training_step`` calls."""
        optimizers = list(trainer.optimizers)
        if not optimizers:
            return
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        loss = getattr(pl_module, self._loss, None) if self._loss else None
        self.watch = watch(
            called_module(pl_module), optimizers, loss, scheduler=schedulers, **self._options
        )

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Detach."""
        if self.watch is not None:
            self.watch.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Detach after an error too."""
        if self.watch is not None:
            self.watch.close()


def called_module(module: Any) -> Any:
    """The network inside of a LightningModule, where it has exactly one child with parameters.

    ``training_step`` usually calls ``self.model(x)`` and not the LightningModule itself.
    """
    children = [c for c in module.children() if any(True for _ in c.parameters())]
    return children[0] if len(children) == 1 else module
