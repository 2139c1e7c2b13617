"""Models whose code stores tensors on its modules: traced, proven and cut, never changed."""

import copy

import pytest
import torch
from torch import Tensor, nn

from evosearch.models.copying import copied
from evosearch.surgery.compaction import compact
from evosearch.surgery.counting import count_macs
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from tests.surgery.cases import random_masks
from tests.surgery.networks import conv, head


class Anchored(nn.Module):
    """A detector's head: places in the image, made on the first pass of each size and stored."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.box = conv(3, 8), conv(8, 6), conv(6, 4)
        self.shape: torch.Size | None = None
        self.anchors = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.box(self.body(self.stem(x).relu()).relu())
        if self.shape != x.shape:
            self.shape = x.shape
            self.anchors = torch.arange(float(x.shape[-1])).to(x) + 0.5
        return x * self.anchors


class Spiking(nn.Module):
    """Leaky neurons that keep their potential, which a pass starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.after, self.head = conv(3, 8), conv(8, 6), head(6)
        self.potential: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.potential = None
        current, spikes = self.stem(x), []
        for _ in range(3):
            before = torch.zeros_like(current) if self.potential is None else self.potential
            self.potential = 0.5 * before + current
            spikes.append(self.potential.sigmoid())
        return self.head(self.after(sum(spikes)).relu())


def found_in(model: nn.Module) -> Discovery:
    return discover(model, (torch.randn(2, 3, 8, 8),), GroupRules(), seed=0)


def stored(model: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(model).items() if not name.startswith("_")}


@pytest.mark.parametrize(
    ("build", "groups"),
    [(Anchored, {"stem": 8, "body": 6}), (Spiking, {"stem": 8, "after": 6})],
)
def test_a_model_that_stores_tensors_is_traced_and_left_as_it_was(
    build: type[nn.Module], groups: dict[str, int]
) -> None:
    torch.manual_seed(0)
    model = build().eval()
    before = stored(model)
    found = found_in(model)
    assert found.space.sizes == groups
    assert stored(model) == before
    images = torch.randn(2, 3, 8, 8)
    expected = copy.deepcopy(model)(images)
    assert torch.equal(model(images), expected)
    # The pass has left tensors with a graph on the model; it can be traced and cut all the same.
    assert found_in(model).space.digest == found.space.digest
    (mask,) = random_masks(found.space, 1)
    small = compact(model, found.space.groups, mask)
    assert count_macs(small, (images,)) == found.space.cost(mask).macs


def test_a_copy_shares_nothing_but_what_is_kept() -> None:
    model = Spiking()
    model(torch.randn(2, 3, 8, 8))
    kept = model.stem.weight
    twin = copied(model, keeping=[kept])
    assert twin.stem.weight is kept
    assert twin.after.weight is not model.after.weight
    assert torch.equal(twin.after.weight, model.after.weight)
    potential = model.potential
    assert potential is not None
    assert torch.equal(twin.potential, potential)
    assert twin.potential.data_ptr() != potential.data_ptr()
