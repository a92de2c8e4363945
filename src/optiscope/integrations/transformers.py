"""A callback for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from optiscope.doctor.watching import Watch, watch

__all__ = ["WatchCallback"]


class WatchCallback(TrainerCallback):  # type: ignore[misc]
    """``Trainer(callbacks=[WatchCallback()])``: findings in ``callback.findings``.

    ``options`` are those of :func:`optiscope.watch`. The loss is the one that the model returns.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options
        self.watch: Watch | None = None

    @property
    def findings(self) -> Any:
        """What the watch has found, causes first."""
        return () if self.watch is None else self.watch.findings

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **objects: Any
    ) -> None:
        """Attach to the model, the optimizer and the schedule of the trainer."""
        optimizer = objects.get("optimizer")
        if model is None or optimizer is None:
            return
        self.watch = watch(
            model,
            optimizer,
            scheduler=objects.get("lr_scheduler"),
            horizon=state.max_steps if state.max_steps and state.max_steps > 0 else None,
            **self._options,
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Detach."""
        if self.watch is not None:
            self.watch.close()
