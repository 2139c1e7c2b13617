"""What "auto" stands for, and what computes in which numbers."""

import pytest
import torch
from torch import nn

from evosearch.models.precision import channels_last, computing_in, images_last, resolve_precision


@pytest.mark.parametrize(("fast", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_what_the_processor_is_fast_with(
    monkeypatch: pytest.MonkeyPatch, fast: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("float32", "cpu") == "float32"
    assert resolve_precision("bfloat16", "cpu") == "bfloat16"


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_convolutions_compute_in_what_is_asked(precision: str, dtype: torch.dtype) -> None:
    layer = nn.Conv2d(1, 2, 3)
    with computing_in(precision, torch.device("cpu")):
        assert layer(torch.randn(1, 1, 5, 5)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_only_images_change_their_layout() -> None:
    assert images_last(torch.randn(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)
    rows = torch.randn(2, 3)
    assert images_last(rows) is rows


def test_the_weights_of_every_convolution_go_where_they_can() -> None:
    model = nn.Sequential(nn.Conv3d(2, 3, 3), nn.Conv2d(2, 3, 3), nn.Conv1d(2, 3, 3))
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    assert channels_last(model) is model
    assert model[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[0].weight.is_contiguous()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
