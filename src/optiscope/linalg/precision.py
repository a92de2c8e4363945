"""Products as exact as their type, whatever was allowed for the model's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["full_precision"]

_EXACT = ("ieee", "none")  # "none": nothing else was asked for


@contextmanager
def full_precision(device_types: Iterable[str]) -> Iterator[None]:
    """No autocast, and no TF32 or bfloat16 inside products of float32, until the block ends.

    Orthonormal bases and Cholesky factors do not survive products of three digits. The choice of
    TF32 (``torch.set_float32_matmul_precision`` and its successors) is the process's: products that
    another thread makes meanwhile are exact too.
    """
    chosen = [
        (backend.matmul, backend.matmul.fp32_precision)
        for backend in (torch.backends.cuda, torch.backends.mkldnn)
    ]
    with ExitStack() as stack:
        for device_type in device_types:
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        try:
            for products, precision in chosen:
                if precision not in _EXACT:
                    products.fp32_precision = "ieee"
            yield
        finally:
            for products, precision in chosen:
                if precision not in _EXACT:
                    products.fp32_precision = "none"  # whatever the whole process has
                    if products.fp32_precision != precision:
                        products.fp32_precision = precision
