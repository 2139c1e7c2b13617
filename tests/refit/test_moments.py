"""Second moments by blocks, and products whose factors are rounded."""

import pytest
import torch

from evosearch.refit import moments
from evosearch.refit.moments import coarse_factors, symmetric_product

CPU = torch.device("cpu")


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 20])
def test_blocks_make_up_the_whole_product(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole numbers: their sums are exact in any order."""
    monkeypatch.setattr(moments, "BLOCK", 8)
    rng = torch.Generator().manual_seed(columns)
    rows = torch.randint(-9, 9, (30, columns), generator=rng).float()
    assert torch.equal(symmetric_product(rows), rows.T @ rows)


def test_rounded_factors_err_little_over_many_centred_rows() -> None:
    """Far under the ridge of a hundredth, measured as what it is added to the diagonal against."""
    rows = torch.randn(8192, 96, generator=torch.Generator().manual_seed(0)).relu()
    rows -= rows.mean(0)
    exact = rows.double().T @ rows.double()
    with coarse_factors(CPU, allowed=True):
        found = symmetric_product(rows).double()
    error = torch.linalg.matrix_norm(found - exact, 2) / exact.diagonal().mean()
    assert error < 1e-3


def test_other_products_are_as_exact_as_before() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    with coarse_factors(CPU, allowed=False):
        assert torch.backends.mkldnn.matmul.fp32_precision == before
    with coarse_factors(CPU, allowed=True):
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    assert torch.backends.mkldnn.matmul.fp32_precision == before
