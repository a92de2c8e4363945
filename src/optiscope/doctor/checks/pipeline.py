"""Checks of the loader: order, workers, random numbers, speed."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, RandomSampler, SequentialSampler

from optiscope.doctor.context import Context, Skipped
from optiscope.doctor.finding import Finding
from optiscope.doctor.unchanged import generators_in, seeded
from optiscope.doctor.user_data import Split, as_tensor

__all__ = ["order", "speed", "worker_seeds"]


def order(context: Context) -> list[Finding]:
    """Whether training samples are shuffled, and the last batch is not a single sample."""
    split = context.splits["train"]
    loader = split.loader
    if loader is None or isinstance(loader.dataset, IterableDataset):
        raise Skipped("train is no DataLoader")
    findings = []
    if isinstance(loader.sampler, SequentialSampler) and loader.batch_sampler is not None:
        size = split.batch_size
        count = min(split.size, 2000)
        try:
            labels = context.labels("train")
            places = context.samples("train").places
            ordered = labels[places.argsort()][:count]
        except Skipped:
            ordered = None
        runs = None
        if ordered is not None and len(ordered) > 2 * size and len(ordered.unique()) > 1:
            runs = float((ordered[1:] != ordered[:-1]).float().mean())
            shares = torch.bincount(ordered).float() / len(ordered)
            chance = 1 - float((shares * shares).sum())
            if runs < 0.2 * chance:
                findings.append(
                    Finding(
                        "batches_sorted_by_label",
                        "data",
                        "error",
                        f"Training samples come sorted by label and are not shuffled: neighbors "
                        f"in order differ in {runs:.0%} of the cases, {chance:.0%} by chance.",
                        "Pass shuffle=True to the training loader.",
                        where=("train",),
                        measured={"share": runs},
                        threshold={"share": 0.2 * chance},
                        explains=("not_shuffled",),
                    )
                )
        if not findings:
            findings.append(
                Finding(
                    "not_shuffled",
                    "data",
                    "warning",
                    "The training loader reads samples in one order, every epoch.",
                    "Pass shuffle=True to the training loader.",
                    where=("train",),
                )
            )
    for name, other in context.splits.items():
        if name != "train" and other.loader is not None and other.loader.drop_last:
            findings.append(
                Finding(
                    "evaluation_drops_samples",
                    "evaluation",
                    "warning",
                    f"The loader of {name} drops its last batch.",
                    "Use drop_last=False where scores are computed.",
                    where=(name,),
                )
            )
    last = split.size % max(split.batch_size, 1)
    norm = context.probe.has("batch_norm")
    if last == 1 and norm and not loader.drop_last and split.batch_size > 1:
        findings.append(
            Finding(
                "last_batch_of_one",
                "modes",
                "warning",
                "The last training batch has one sample, and the model normalizes over the batch.",
                "Pass drop_last=True.",
                where=("train",),
                measured={"samples": 1.0},
                threshold={"samples": 2.0},
            )
        )
    if isinstance(loader.sampler, RandomSampler) and loader.sampler.replacement:
        findings.append(
            Finding(
                "sampled_with_replacement",
                "data",
                "note",
                "Training samples are drawn with replacement: an epoch misses about a third.",
                "Leave out replacement=True unless it is meant.",
                where=("train",),
            )
        )
    return findings


def worker_seeds(context: Context) -> list[Finding]:
    """Whether workers, or epochs, would draw the same random numbers.

    No worker is started: a sample is read twice with the global generators seeded differently, as
    workers are, and every generator that the dataset holds set back, as copies in workers are.
    """
    split = context.splits["train"]
    loader = split.loader
    if loader is None or loader.num_workers == 0 or isinstance(loader.dataset, IterableDataset):
        raise Skipped("no worker processes are used")
    own = generators_in(loader.dataset)
    places = torch.linspace(0, split.size - 1, min(4, split.size)).long().tolist()
    with seeded(1, *own):
        first = _read(split, places, loader, 0)
        later = _read(split, places, loader, None)
    if _equal(first, later):
        raise Skipped("the dataset draws no random numbers")
    with seeded(2, *own):
        other = _read(split, places, loader, 1)
    if not _equal(first, other):
        return []
    again = "; and the same in every epoch" if not loader.persistent_workers else ""
    if loader.num_workers == 1 and loader.persistent_workers:
        return []
    return [
        Finding(
            "workers_draw_the_same",
            "data",
            "error",
            f"{loader.num_workers} workers draw the same random numbers{again}: the dataset holds "
            "a generator that is copied into each.",
            "Make the generator from torch.initial_seed() in worker_init_fn, or use torch's "
            "global generator.",
            where=("train",),
            measured={"workers": loader.num_workers},
            threshold={"workers": 1.0},
        )
    ]


def _read(split: Split, places: list[int], loader: Any, worker: int | None) -> list[Tensor]:
    """Samples as worker number ``worker`` would read them first (None: as it goes on)."""
    if worker is not None and loader.worker_init_fn is not None:
        from torch.utils.data._utils import worker as state

        info = state.WorkerInfo(
            id=worker,
            num_workers=loader.num_workers,
            seed=1 + worker,
            dataset=loader.dataset,
        )
        before = state._worker_info
        state._worker_info = info
        try:
            loader.worker_init_fn(worker)
            return [as_tensor(split.sample(place)[0]).clone() for place in places]
        finally:
            state._worker_info = before
    return [as_tensor(split.sample(place)[0]).clone() for place in places]


def _equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True))


def speed(context: Context) -> list[Finding]:
    """Seconds for a batch of data against those for a step of the model."""
    split = context.splits["train"]
    size = split.batch_size
    inputs, targets = context.batch
    data, reads = 0.0, 0
    while reads < 3 and data < 0.03 * context.seconds:
        start = time.perf_counter()
        split.batch(list(range(min(size, split.size))))
        data += time.perf_counter() - start
        reads += 1
    workers = max(1, getattr(split.loader, "num_workers", 0) or 0)
    each = data / reads / workers
    probe = context.probe.copy()
    steps = []
    for _ in range(3):
        start = time.perf_counter()
        with torch.enable_grad():
            loss = context.objective(probe(inputs, training=True), targets, inputs)
            if probe.trainable and loss.requires_grad:
                torch.autograd.grad(
                    loss, [probe.weights[n] for n in probe.trainable], allow_unused=True
                )
        steps.append(time.perf_counter() - start)
        if sum(steps) > 0.05 * context.seconds:
            break
    step = min(steps)
    context.measured |= {"seconds of data": each, "seconds of a step": step}
    if each < 2 * step or each < 0.02:
        return []
    return [
        Finding(
            "data_slower_than_model",
            "speed",
            "note",
            f"A batch of data takes {1000 * each:.0f} ms, a step of the model "
            f"{1000 * step:.0f} ms: training waits for data.",
            "Use more workers, cache decoded samples, or transform whole batches.",
            where=("train",),
            measured={"seconds": each},
            threshold={"seconds": 2 * step},
            confidence=0.8,
        )
    ]
