"""Patches times weight against the layers themselves, wherever their code pads."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evosearch.refit.patches import (
    Calls,
    channels_first,
    channels_last,
    drawn_patches,
    has_patches,
    input_patches,
    rows_of,
)
from evosearch.surgery.tracing.export import trace
from evosearch.surgery.tracing.layer import Geometry, Layer


class PadsItself(nn.Conv2d):
    """Pads as TensorFlow does, by what its input needs, and calls the operator without any."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride, step in zip(
            x.shape[:1:-1], self.kernel_size, self.stride, self.dilation, strict=True
        ):
            needed = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * step + 1 - size)
            pads += [needed // 2, needed - needed // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation)


MODULES = {
    "strided": nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2, bias=False),
    "uneven": nn.Conv2d(3, 4, (3, 2), stride=(1, 2), padding=(0, 1), bias=False),
    "same": nn.Conv2d(3, 4, (3, 4), padding="same", bias=False),
    "valid": nn.Conv2d(3, 4, (3, 4), padding="valid", bias=False),
    "reflect": nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", bias=False),
    "circular": nn.Conv2d(3, 4, 3, padding=2, padding_mode="circular", bias=False),
    "pads itself": PadsItself(3, 4, 3, stride=2, bias=False),
    "linear": nn.Linear(8, 4, bias=False),
}


def observed(module: nn.Module, inputs: Tensor) -> tuple[Layer, Tensor, Tensor]:
    """Returns the traced layer, and what its operator reads and gives."""
    model = nn.Sequential(module)
    (layer,) = trace(model, (inputs,)).layers
    assert has_patches(layer)
    seen: list[Tensor] = []
    show = lambda _, values: seen.append(values.detach())  # noqa: E731
    with Calls(model, [layer], before=show, after=show):
        output = model(inputs)
    assert torch.equal(seen[1], output.detach())
    return layer, seen[0], seen[1]


@pytest.mark.parametrize("name", MODULES)
def test_patches_times_weight_is_the_layer(name: str) -> None:
    module = MODULES[name]
    layer, read, output = observed(module, torch.randn(2, 3, 9, 8))
    weight = module.weight.detach().flatten(1)  # type: ignore[operator, union-attr]
    rows = rows_of(layer, output)
    assert rows.shape[2] == 4
    torch.testing.assert_close(input_patches(layer, read) @ weight.T, rows.flatten(0, 1))
    drawn = torch.stack([torch.randperm(rows.shape[1])[:5] for _ in range(2)])
    expected = torch.stack([rows[image, drawn[image]] for image in range(2)])
    rows, whole = drawn_patches(layer, read, drawn), module.weight.detach()
    torch.testing.assert_close(rows @ channels_last(whole).T, expected.flatten(0, 1))  # type: ignore[arg-type]
    torch.testing.assert_close(
        channels_first(rows, whole.shape[1]) @ weight.T,
        expected.flatten(0, 1),  # type: ignore[index]
    )


def test_rows_of_a_linear_layer_without_positions() -> None:
    layer, read, output = observed(nn.Linear(8, 4), torch.randn(5, 8))
    assert rows_of(layer, output).shape == (5, 1, 4)
    assert torch.equal(drawn_patches(layer, read, torch.zeros(5, 1, dtype=torch.int64)), read)


def test_geometry_is_what_the_graph_has() -> None:
    layer, *_ = observed(MODULES["pads itself"], torch.randn(2, 3, 9, 8))
    assert layer.geometry == Geometry(
        kernel=(3, 3), stride=(2, 2), padding=((0, 0), (0, 0)), dilation=(1, 1)
    )
    layer, *_ = observed(MODULES["same"], torch.randn(2, 3, 9, 8))
    assert layer.geometry is not None
    assert layer.geometry.padding == ((1, 1), (1, 2))


def test_what_has_no_patches() -> None:
    for module in (nn.Conv2d(4, 4, 3, groups=2), nn.ConvTranspose2d(4, 4, 3)):
        (layer,) = trace(nn.Sequential(module), (torch.randn(2, 4, 9, 8),)).layers
        assert not has_patches(layer)
