"""What "auto" stands for, what computes in which numbers and layout, and what falls back."""

import pytest
import torch
from torch import nn

from evosearch.models.precision import (
    PLAIN,
    Layout,
    Numerics,
    Precision,
    fastest_numerics,
    first_working,
    resolve_precision,
)

CPU = torch.device("cpu")
LAST = Numerics(precision="float32", layout="channels_last")


@pytest.mark.parametrize(("fast", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_what_the_processor_is_fast_with(
    monkeypatch: pytest.MonkeyPatch, fast: bool, expected: Precision
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("float32", "cpu") == "float32"
    assert resolve_precision("bfloat16", "cpu") == "bfloat16"
    fastest = Numerics(precision=expected, layout="channels_last")
    assert fastest_numerics(CPU) == fastest
    assert fastest_numerics(CPU, precision="float32", layout="contiguous") == PLAIN


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_convolutions_compute_in_what_is_asked(precision: Precision, dtype: torch.dtype) -> None:
    layer = nn.Conv2d(1, 2, 3)
    with Numerics(precision=precision, layout="contiguous").computing(CPU):
        assert layer(torch.randn(1, 1, 5, 5)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_only_images_change_their_layout() -> None:
    images, rows = torch.randn(2, 3, 4, 4), torch.randn(2, 3)
    assert LAST.images(images).is_contiguous(memory_format=torch.channels_last)
    assert LAST.images(rows) is rows
    assert PLAIN.images(images) is images


def test_the_weights_of_every_convolution_go_where_they_can() -> None:
    model = nn.Sequential(nn.Conv3d(2, 3, 3), nn.Conv2d(2, 3, 3), nn.Conv1d(2, 3, 3))
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    assert PLAIN.network(model)[1].weight.is_contiguous()
    assert LAST.network(model) is model
    assert model[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[0].weight.is_contiguous()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("broken", "tried"),
    [
        ((), [("bfloat16", "channels_last")]),
        (("channels_last",), [("bfloat16", "channels_last"), ("bfloat16", "contiguous")]),
        (
            ("bfloat16",),
            [
                ("bfloat16", "channels_last"),
                ("bfloat16", "contiguous"),
                ("float32", "channels_last"),
            ],
        ),
        (
            ("bfloat16", "channels_last"),
            [
                ("bfloat16", "channels_last"),
                ("bfloat16", "contiguous"),
                ("float32", "channels_last"),
                ("float32", "contiguous"),
            ],
        ),
    ],
)
def test_the_layout_falls_back_before_the_precision_does(
    broken: tuple[str, ...], tried: list[tuple[Precision, Layout]]
) -> None:
    seen: list[tuple[Precision, Layout]] = []

    def attempt(numerics: Numerics) -> None:
        seen.append((numerics.precision, numerics.layout))
        if numerics.precision in broken or numerics.layout in broken:
            raise KeyError(f"attempt {len(seen)}")

    wanted = Numerics(precision="bfloat16", layout="channels_last")
    found, failed = first_working(wanted, attempt)
    assert seen == tried
    assert (found.precision, found.layout) == tried[-1]
    assert failed == ("KeyError: 'attempt 1'" if broken else None)


def test_what_fails_in_the_plain_numerics_fails() -> None:
    seen: list[Numerics] = []

    def attempt(numerics: Numerics) -> None:
        seen.append(numerics)
        raise KeyError(str(numerics))

    with pytest.raises(KeyError, match="float32, contiguous"):
        first_working(LAST, attempt)
    assert seen == [LAST, PLAIN]
    with pytest.raises(KeyError, match="float32, contiguous"):
        first_working(PLAIN, attempt)
    assert seen[2:] == [PLAIN]
