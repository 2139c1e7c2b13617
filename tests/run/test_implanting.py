"""Implants: what they compute and cost, which come back, and what is saved of them."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from evosearch.errors import InputError
from evosearch.export import artifact as artifact_module
from evosearch.export.artifact import Artifact
from evosearch.export.rebuild import Implanted
from evosearch.run.implanting import Implanting, _most, require_counted
from evosearch.space.budget import FLOPS, Bound, Budget
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from evosearch.training.distillation import FinetuneConfig


class Network(nn.Module):
    """A stem, a block with a strided convolution and a 1x1 way around it, and a last one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 6, 5, stride=2, padding=2)
        self.outer, self.around = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 8, 1, stride=2)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        y = self.norms[0](self.outer(self.inner(x).relu()))
        x = (y + self.norms[1](self.around(x))).relu()
        return self.head(x.mean((2, 3)))


IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()


def network() -> nn.Module:
    torch.manual_seed(0)
    model = Network().double()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if "norm" in name and tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def found() -> tuple[nn.Module, Discovery]:
    model = network()
    return model, discover(model.float(), (IMAGES[:2].float(),), GroupRules(), 0)


def bits(size: int, kept: int) -> np.ndarray:
    return np.arange(size) < kept


@pytest.fixture
def place(found: tuple[nn.Module, Discovery]) -> Implanting:
    model, discovery = found
    sizes = discovery.space.sizes
    plan = Mask({name: bits(size, size // 2) for name, size in sizes.items()})
    return Implanting(model=copy.deepcopy(model).double(), discovery=discovery, plan=plan)


def whole(place: Implanting, group: str, channels: list[int]) -> Mask:
    """Returns the plan with some channels of a group."""
    own = {name: kept.copy() for name, kept in place.plan.items()}
    own[group][channels] = True
    return Mask(own)


@pytest.fixture
def masks(place: Implanting) -> list[Mask]:
    names = list(place.plan)
    one = [whole(place, name, [place.plan[name].size - 1]) for name in names]
    everything = Mask(
        {
            n: kept | one_[n]
            for n, kept in place.plan.items()
            for one_ in [whole(place, n, [place.plan[n].size - 1, place.plan[n].size - 3])]
        }
    )
    return [place.plan, *one, everything]


def test_what_can_come_back_is_made_by_larger_kernels(place: Implanting) -> None:
    writers = {layer.module for layers in place.writers.values() for layer in layers}
    assert writers == {"stem", "inner", "outer"}
    scores = {name: np.arange(kept.size)[::-1].astype(float) for name, kept in place.plan.items()}
    order = place.order(scores)
    assert len(order) == sum(int((~place.plan[name]).sum()) for name in place.writers)
    values = [scores[name][channel] for name, channel in order]
    assert values == sorted(values, reverse=True)
    assert place.with_first(order, 0) == place.plan
    name, channel = order[0]
    assert place.with_first(order, 1) == whole(place, name, [channel])


def test_cost_is_that_of_the_network_as_it_is_built(place: Implanting, masks: list[Mask]) -> None:
    cut = compact(place.model, place.discovery.space.groups, place.plan)
    for mask in masks:
        built = place.build(cut, mask)
        counter = FlopCounterMode(display=False)
        with counter:
            built(IMAGES[:1])
        cost = place.cost(mask)
        assert 2 * cost.macs == counter.get_total_flops()
        assert cost.params == sum(p.numel() for p in built.parameters())
        assert cost.activations == place.discovery.space.cost(mask).activations
    assert place.cost(place.plan) == place.discovery.space.cost(place.plan)


def test_implants_are_kernels_of_nothing_but_a_centre(
    place: Implanting, masks: list[Mask]
) -> None:
    """The oracle: the plain network, whose kernels are zero but where implants read."""
    groups = place.discovery.space.groups
    cut = compact(place.model, groups, place.plan)
    for mask in masks:
        plain = compact(place.model, groups, mask).eval()
        built = place.build(cut, mask).eval()
        implants = {n: m for n, m in built.named_modules() if isinstance(m, Implanted)}
        assert bool(implants) == (mask != place.plan)
        for name, module in implants.items():
            assert not module.implant.weight.any()
            with torch.no_grad():
                plain.get_submodule(name).weight[module.places] = 0
        torch.testing.assert_close(built(IMAGES), plain(IMAGES), rtol=1e-12, atol=1e-12)
        for name, module in implants.items():
            with torch.no_grad():
                nn.init.normal_(module.implant.weight)
                weight = plain.get_submodule(name).weight
                middle = weight.shape[-1] // 2
                weight[module.places, :, middle, middle] = module.implant.weight[:, :, 0, 0]
        torch.testing.assert_close(built(IMAGES), plain(IMAGES), rtol=1e-12, atol=1e-12)


def test_the_weights_of_the_cut_network_stay(place: Implanting, masks: list[Mask]) -> None:
    """Those that were refitted, not the base network's: with what reads implants at zero."""
    cut = compact(place.model, place.discovery.space.groups, place.plan).eval()
    with torch.no_grad():
        for parameter in cut.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
    built = place.build(cut, masks[-1]).eval()
    full = built.state_dict()
    with torch.no_grad():
        for name, tensor in full.items():
            own = cut.state_dict().get(name.replace(".main", ""))
            if own is None or tensor.ndim < 2:
                continue
            if own.shape != tensor.shape:  # columns that read implants, and rows that 1x1 make
                same = torch.zeros_like(tensor, dtype=torch.bool)
                for value in own.flatten():
                    same |= tensor == value
                assert int(same.sum()) == own.numel()
                tensor[~same] = 0
    extra = built(IMAGES) - cut(IMAGES)
    assert extra.abs().max() < 1e-12


def test_an_artifact_has_its_implants(
    place: Implanting, masks: list[Mask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_module, "verify_reload", lambda *_: None)
    cut = compact(place.model, place.discovery.space.groups, place.plan)
    built = place.build(cut, masks[-1]).float().eval()
    for module in built.modules():
        if isinstance(module, Implanted):
            nn.init.normal_(module.implant.weight)
    section = {"build": "tests.run.test_implanting:Network", "input": [1, 8, 8]}
    base = place.model.float()
    Artifact.save(
        tmp_path / "saved",
        network=built,
        base=base,
        mask=masks[-1],
        model_section=section,
        card={},
    )
    assert not any(isinstance(m, Implanted) for m in base.modules())
    opened = Artifact.open(tmp_path / "saved")
    places = {n: m.places for n, m in built.named_modules() if isinstance(m, Implanted)}
    assert dict(opened.plan["implants"]) == places
    loaded = opened.load(Network)
    assert torch.equal(loaded(IMAGES.float()), built(IMAGES.float()))
    plan = (tmp_path / "saved" / "plan.json").read_text()
    for bad in ('"inner": [-1]', '"inner": ["a"]', '"head": [0]', '"inner": [600]', '"inner": []'):
        first = f'"inner": {places["inner"]}'.replace(" ", "")
        compactly = plan.replace(" ", "").replace("\n", "").replace(first, bad)
        assert bad in compactly
        (tmp_path / "saved" / "plan.json").write_text(compactly)
        with pytest.raises(InputError, match="implants"):
            Artifact.open(tmp_path / "saved").load(Network)


def test_as_many_as_fit_come_back() -> None:
    for least in range(7):
        assert _most(5, lambda n, least=least: n <= least) == min(5, least)
    assert _most(0, lambda _: True) == 0


def test_a_budget_that_is_not_counted_is_refused() -> None:
    counted = Budget.exactly(macs=100)
    require_counted(counted, timed=False)
    kept = Budget(bounds={FLOPS: Bound(low=1, high=100)}, least_accuracy=0.9)
    for budget, timed in ((counted, True), (kept, False), (Budget.exactly(latency=5), False)):
        with pytest.raises(InputError, match="of FLOPs or params"):
            require_counted(budget, timed=timed)


@pytest.mark.parametrize(
    "given", [{"penalties": {"bn_l1": 1e-4}}, {"kernels": "2:4"}, {"pace": "linear"}]
)
def test_what_goes_by_channel_groups_is_refused_beside(given: dict[str, object]) -> None:
    with pytest.raises(InputError, match="leave these out, or implants"):
        FinetuneConfig(implants=0.1, **given)  # type: ignore[arg-type]
