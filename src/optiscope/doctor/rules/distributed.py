"""Distributed training: ranks that differ, and ranks that see the same data.

Ranks leave their figures in the store that the process group was made with and never wait for each
other: a rank without a watch, or with fewer steps, blocks nobody.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import torch.distributed as dist

from optiscope.doctor.rule import Rule
from optiscope.monitor.events import Forward, WatchedStep, at_looks

__all__ = ["RULES"]


class Ranks(Rule):
    """Parameters and batches of all ranks, compared at looked-at steps."""

    name = "ranks_differ"
    family = "distributed"
    severity = "error"
    exact = True
    also = ("ranks_see_same_data",)
    SAME = 5
    watches = itertools.count()  # ranks attach their watches in the same order

    def __init__(self) -> None:
        super().__init__()
        self.key = f"optiscope/{next(Ranks.watches)}"
        self.waiting: list[tuple[int, list[str]]] = []
        self.batch = 0
        self.same = 0
        self.different = 0

    @at_looks
    def forward(self, forward: Forward) -> None:
        """Keep the sum of the fingerprints of the last training batch."""
        if forward.grad and forward.look and forward.rows is not None and _active():
            self.batch = int(forward.rows.sum())

    @at_looks
    def after_step(self, view: WatchedStep) -> None:
        """Leave this rank's figures and read those of an earlier look."""
        if not view.look or view.index or not _active():
            return
        sharded = any(hasattr(p, "placements") for p in view.parameters)
        if sharded or type(self.session._root()).__name__ == "FullyShardedDataParallel":
            return
        store = _store()
        rank, world = dist.get_rank(), dist.get_world_size()
        total = 0.0
        for p in view.parameters:
            values = p.detach().double()
            total += float(values.sum()) + float(values.square().sum())
        key = f"{self.key}/{view.number}"
        store.set(f"{key}/{rank}", json.dumps([total, self.batch]))
        self.waiting.append((view.number, [f"{key}/{r}" for r in range(world)]))
        self._compare(store)

    def _compare(self, store: Any) -> None:
        for number, keys in list(self.waiting):
            if not store.check(keys):
                continue
            self.waiting.remove((number, keys))
            values = [json.loads(store.get(key)) for key in keys]
            totals = [v[0] for v in values]
            spread = max(totals) - min(totals)
            size = max(1.0, max(abs(t) for t in totals))
            self.different = self.different + 1 if spread > 1e-9 * size else 0
            if self.different >= 1 and number > 0:
                self.report(
                    f"Parameters of the ranks differ (by {spread / size:.1e} at step {number}).",
                    "Call the DistributedDataParallel module itself, not model.module, and change "
                    "no weights by hand.",
                    measured={"difference": spread / size},
                    threshold={"difference": 1e-9},
                )
            batches = {v[1] for v in values}
            self.same = self.same + 1 if len(batches) == 1 and values[0][1] else 0
            if self.same >= self.SAME:
                self.report(
                    f"All ranks have seen the same batch in {self.same} looks.",
                    "Use a DistributedSampler (or seed the sampler by rank).",
                    rule="ranks_see_same_data",
                    severity="warning",
                    measured={"looks": self.same},
                    threshold={"looks": self.SAME},
                )
        del self.waiting[:-8]


def _active() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


RULES: tuple[type[Rule], ...] = (Ranks,)
