"""A rerun gives what a run gives, whatever the code does between convolutions."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from evosearch.surgery import rerunning
from evosearch.surgery.rerunning import Call, Rerun
from tests.surgery.networks import Net, conv, randomized

IMAGES = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def run(
    model: nn.Module,
    images: Tensor,
    before: list[Call | None] | None = None,
    changed: Iterable[Tensor] = (),
) -> tuple[Tensor, Rerun]:
    with torch.inference_mode(), Rerun(model, before or [], changed) as rerun:
        return model(images.clone()), rerun


def plain(model: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        result: Tensor = model(images.clone())
        return result


def in_place(net: Net, x: Tensor) -> Tensor:
    """Changes what goes into a convolution and what comes out of one, after both ran."""
    first = net.a(x)
    second = net.b(first)
    first.relu_().add_(1)
    second.mul_(first)
    x.zero_()
    return net.c(second).flatten(1) + x.sum()


def by_values(net: Net, x: Tensor) -> Tensor:
    """Calls in an order that depends on what comes in."""
    a = net.b(net.a(x)) if x.mean() > 0 else net.a(net.b(net.a(x)))
    return net.c(a).flatten(1)


def computed_weight(net: Net, x: Tensor) -> Tensor:
    weight = net.b.weight / net.b.weight.norm()
    return net.c(nn.functional.conv2d(net.a(x), weight, padding=1)).flatten(1)


def built(forward: Callable[..., Tensor]) -> nn.Module:
    net = Net(forward, a=conv(3, 3), b=conv(3, 3), c=conv(3, 4))
    return randomized(net).double()


@pytest.mark.parametrize("forward", [in_place, by_values, computed_weight])
def test_a_rerun_is_the_run(forward: Callable[..., Tensor]) -> None:
    model = built(forward)
    whole, recorded = run(model, IMAGES)
    again, rerun = run(model, IMAGES, recorded.calls)
    assert torch.equal(whole, plain(model, IMAGES))
    assert torch.equal(again, whole)
    assert rerun.reused == len(recorded.calls) == 3 + (forward is by_values) * (IMAGES.mean() <= 0)
    for images in (-IMAGES, IMAGES + 1e-6):
        assert torch.equal(run(model, images, recorded.calls)[0], plain(model, images))


def test_a_weight_that_changed_is_used_as_it_is() -> None:
    model = built(in_place)
    _, recorded = run(model, IMAGES)
    with torch.no_grad():
        model.b.weight[:, 1] = 0
    output, rerun = run(model, IMAGES, recorded.calls, [model.b.weight])
    assert torch.equal(output, plain(model, IMAGES))
    assert rerun.reused == 1
    model.b.weight = nn.Parameter(model.b.weight + 1.0)  # another tensor in its place
    output, rerun = run(model, IMAGES, recorded.calls)
    assert torch.equal(output, plain(model, IMAGES))


def test_arguments_by_name_count() -> None:
    def scaled(net: Net, x: Tensor) -> Tensor:
        return torch.addmm(net.c.bias, x.flatten(1), net.plane.weight.T, beta=net.beta)

    model = Net(scaled, c=conv(3, 4), plane=nn.Linear(3 * 6 * 6, 4)).double()
    model.beta = 1.0
    _, recorded = run(model, IMAGES)
    model.beta = 2.0
    assert torch.equal(run(model, IMAGES, recorded.calls)[0], plain(model, IMAGES))


@pytest.mark.parametrize(("relative", "reused"), [(1e-15, 3), (1e-10, 0)])
def test_rounding_is_overlooked_and_nothing_else(relative: float, reused: int) -> None:
    model = built(by_values)
    images = IMAGES + 5
    whole, recorded = run(model, images)
    other, rerun = run(model, images * (1 + relative), recorded.calls)
    assert rerun.reused == reused
    assert torch.equal(other, whole) == bool(reused)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_none_are_close_to_none(value: float) -> None:
    model = built(by_values)
    images = IMAGES.clone()
    images[0, 0, 0, 0] = value
    _, broken = run(model, images)
    for others in (IMAGES, images * 2):
        output, rerun = run(model, others, broken.calls)
        assert rerun.reused == 0
        assert torch.equal(output.nan_to_num(), plain(model, others).nan_to_num())


def test_what_finds_no_room_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(in_place)
    monkeypatch.setattr(rerunning, "ROOM", 3 * IMAGES.nbytes)
    whole, recorded = run(model, IMAGES)
    assert [call is None for call in recorded.calls] == [False, True, True]
    output, rerun = run(model, IMAGES, recorded.calls)
    assert torch.equal(output, whole)
    assert rerun.reused == 1
