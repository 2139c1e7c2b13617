"""Second moments of rows: products of values, summed in float32 or wider."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

BLOCK = 256
"""Columns that are multiplied together: of a symmetric product nearly half is left out."""


def symmetric_product(rows: Tensor) -> Tensor:
    """Returns `rows.T @ rows`, `(columns, columns)`; what lies above the diagonal is copied.

    Args:
        rows: `(rows, columns)`.
    """
    columns = rows.shape[1]
    product = rows.new_empty(columns, columns)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        torch.mm(rows[:, start:stop].T, rows[:, :stop], out=product[start:stop, :stop])
        product[:start, start:stop] = product[start:stop, :start].T
    return product


@contextmanager
def coarse_factors(device: torch.device, *, allowed: bool) -> Iterator[None]:
    """Lets products of float32 round their factors inside the block; their sums stay float32.

    On a CPU to bfloat16, on CUDA to TF32, where the processor is faster with it. The error of a
    product is a share of it and random, so that it averages out over thousands of rows, if these
    lie around zero.

    Args:
        device: whose products are meant.
        allowed: False leaves things as they are.
    """
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    before = backend.matmul.fp32_precision
    if allowed:
        backend.matmul.fp32_precision = "tf32" if device.type == "cuda" else "bf16"
    try:
        yield
    finally:
        backend.matmul.fp32_precision = before
