"""Trials on a Dask cluster of this machine (skipped without the extra ``dask``)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

import pytest

from optiscope.executors.dask import DaskError, dask_executor
from optiscope.testing.executors import ExecutorConformance

distributed = pytest.importorskip("distributed", reason="needs the extra dask")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as made:
        TestDask.address = made.scheduler_address.replace("tcp://", "dask://")
        yield made


class TestDask(ExecutorConformance):
    address = ""

    def make(self, workers: int) -> Executor:
        return dask_executor(self.address)(workers)


def test_nobody_at_an_address_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optiscope.executors.dask.SECONDS", 1)
    with pytest.raises(DaskError, match=r"expected a Dask scheduler at 'dask://127"):
        dask_executor("dask://127.0.0.1:9")


def test_workers_of_several_threads_are_refused() -> None:
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as made,
        pytest.raises(DaskError, match="of one thread, got 2"),
    ):
        dask_executor(made.scheduler_address.replace("tcp://", "dask://"))
