"""The proof catches wrong groups: they are frozen and named, and the right ones stay."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evosearch.errors import TracingError
from evosearch.space.mask import ChannelGroup, Member
from evosearch.surgery.discovery import GroupRules, discover
from evosearch.surgery.proof import Checker, Proof, prove
from evosearch.surgery.randomizing import randomize
from evosearch.surgery.tracing.export import Trace, trace
from tests.surgery.cases import CASES
from tests.surgery.networks import Case, Net, conv, head, randomized

SEED = 3


def traced(name: str) -> tuple[nn.Module, tuple[Any, ...], Trace]:
    case = CASES[name]
    model, example = case.model(), case.example()
    return model, example, trace(model, example)


def proven(model: nn.Module, example: tuple[Any, ...], found: Trace, seed: int = SEED) -> Proof:
    return prove(Checker(model, example, seed), found)


def with_group(found: Trace, name: str, change: Callable[[ChannelGroup], ChannelGroup]) -> Trace:
    """Returns a trace with one group changed."""
    groups = tuple(change(g) if g.name == name else g for g in found.groups)
    assert groups != found.groups
    return replace(found, groups=groups)


def with_member(
    group: ChannelGroup, tensor: str, change: Callable[[tuple[int, ...]], tuple[int, ...]]
) -> ChannelGroup:
    """Returns a group with the positions of one member changed."""
    members = tuple(
        replace(m, positions=change(m.positions)) if m.tensor == tensor else m
        for m in group.members
    )
    return replace(group, members=members)


def outcome(proof: Proof) -> tuple[set[str], dict[str, str]]:
    return {g.name for g in proof.groups}, {part.name: part.reason for part in proof.frozen}


def test_a_right_trace_is_proven_whole() -> None:
    model, example, found = traced("residual")
    proof = proven(model, example, found)
    assert proof.groups == found.groups
    assert proof.frozen == ()


@pytest.mark.parametrize(
    ("network", "group", "tensor"),
    [
        ("concat", "left", "bn.weight"),
        ("concat", "stem", "head.2.weight"),
        ("residual", "stem", "conv2.weight"),
        ("flatten", "0", "4.weight"),
        ("depthwise", "0", "6.weight"),
    ],
)
def test_a_member_in_the_wrong_order_is_caught(network: str, group: str, tensor: str) -> None:
    model, example, found = traced(network)
    wrong = with_group(found, group, lambda g: with_member(g, tensor, lambda p: p[::-1]))
    kept, reasons = outcome(proven(model, example, wrong))
    assert kept == {g.name for g in found.groups} - {group}
    assert "proof failed" in reasons[group]


def test_a_missing_member_is_caught() -> None:
    model, example, found = traced("squeeze_excite")
    wrong = with_group(
        found,
        "stem",
        lambda g: replace(g, members=tuple(m for m in g.members if m.tensor != "up.bias")),
    )
    kept, reasons = outcome(proven(model, example, wrong))
    assert kept == {"down"}
    assert "proof failed" in reasons["stem"]


def test_two_halves_that_only_fit_swapped_are_caught() -> None:
    """What torch-pruning 1.6.1 does with `chunk`: consumers exchanged, shapes all right."""
    model, example, found = traced("concat")
    stem = next(g for g in found.groups if g.name == "stem")
    halves = (3, 4, 5, 0, 1, 2)
    wrong = with_group(
        found,
        "stem",
        lambda g: with_member(
            g, "left.weight", lambda p: tuple(p[i] for i in halves) if len(p) == stem.size else p
        ),
    )
    kept, reasons = outcome(proven(model, example, wrong))
    assert kept == {"left", "right"}
    assert "proof failed" in reasons["stem"]


def test_groups_that_only_clash_together_are_bisected_to_one() -> None:
    """Code that looks at two widths at once: each group alone is right."""

    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        a, b = net.left(x).relu(), net.right(x).relu()
        both = torch.cat([a, b], 1)
        return net.head(both if both.shape[1] > 8 else 2 * both)

    model = randomized(Net(run, stem=conv(3, 6), left=conv(6, 8), right=conv(6, 8), head=head(16)))
    example = (torch.randn(2, 3, 8, 8),)
    kept, reasons = outcome(proven(model, example, trace(model, example)))
    assert kept == {"stem", "left"}
    assert reasons["right"].startswith("proof failed together with other groups: outputs differ")


def test_widths_at_which_the_code_breaks_are_tried() -> None:
    """`squeeze` without a dimension also squeezes the channels when one is left."""

    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        pooled = net.pool(net.inner(x).relu()).squeeze()
        return net.head(x) + net.last(pooled)

    def build() -> nn.Module:
        pool, last = nn.AdaptiveAvgPool2d(1), nn.Linear(7, 5)
        return Net(run, stem=conv(3, 6), inner=conv(6, 7), pool=pool, last=last, head=head(6))

    example = (torch.randn(2, 3, 8, 8),)
    found = discover(randomized(build()), example, GroupRules(), SEED).space
    assert set(found.sizes) == {"stem"}
    wider = discover(randomized(build()), example, GroupRules(min_keep=2), SEED).space
    assert set(wider.sizes) == {"stem", "inner"}


def test_dropping_without_effect_is_no_proof() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        return net.head(x) + 0.0 * net.unused(net.dead(x).relu()).mean((2, 3))

    model = randomized(Net(run, stem=conv(3, 6), dead=conv(6, 4), unused=conv(4, 5), head=head(6)))
    example = (torch.randn(2, 3, 8, 8),)
    kept, reasons = outcome(proven(model, example, trace(model, example)))
    assert kept == {"stem"}
    assert reasons["dead"].startswith("unproven: dropping channels moves the output by only")


def test_a_tiny_layer_scale_does_not_hide_an_error() -> None:
    model, example, found = traced("layer_scale")
    assert float(model.scale.detach().abs().mean()) > 0
    with torch.no_grad():
        model.scale.fill_(1e-12)
    wrong = with_group(found, "stem", lambda g: with_member(g, "scale", lambda p: p[::-1]))
    assert outcome(proven(model, example, found))[0] == {"stem"}
    assert outcome(proven(model, example, wrong))[0] == set()


def test_a_single_channel_is_frozen() -> None:
    model = randomized(nn.Sequential(conv(3, 1), nn.ReLU(), conv(1, 4), nn.ReLU(), head(4)))
    example = (torch.randn(2, 3, 8, 8),)
    kept, reasons = outcome(proven(model, example, trace(model, example)))
    assert kept == {"2"}
    assert reasons["0"] == "a single channel"


def test_proof_is_deterministic_and_leaves_the_model_alone() -> None:
    model, example, found = traced("squeeze_excite")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = proven(model, example, found), proven(model, example, found)
    assert first == second
    assert proven(model, example, found, SEED + 1).measured != first.measured
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_a_member_outside_the_tensor_is_caught() -> None:
    model, example, found = traced("plain")
    extra = Member(tensor="linear.bias", dim=0, positions=(0, 1, 2, 3))
    wrong = with_group(found, "conv1", lambda g: replace(g, members=(*g.members, extra)))
    kept, reasons = outcome(proven(model, example, wrong))
    assert kept == {"conv2"}
    assert "proof failed" in reasons["conv1"]


def test_outputs_that_are_not_numbers_prove_nothing() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.stem(x).relu()) / 0.0 * 0.0

    model = randomized(Net(run, stem=conv(3, 6), head=head(6)))
    example = (torch.randn(2, 3, 8, 8),)
    kept, reasons = outcome(proven(model, example, trace(model, example)))
    assert kept == set()
    assert reasons["stem"].startswith("proof failed")


def test_a_model_that_does_not_run_in_float64_is_one_clear_line() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.stem(x.float()).relu())

    model = Net(run, stem=conv(3, 6), head=head(6))
    with pytest.raises(TracingError, match=r"^Net does not run in float64, as its proof must: "):
        Checker(model, (torch.randn(2, 3, 8, 8),), SEED)


class OwnNorm(nn.Module):
    """A norm whose variances have a name of their own, and whose code takes their root."""

    def __init__(self, name: str, start: float) -> None:
        super().__init__()
        self.name = name
        self.register_buffer("center", torch.zeros(8))
        self.register_buffer(name, torch.full((8,), start))

    def forward(self, x: Tensor) -> Tensor:
        scale = getattr(self, self.name).sqrt()[:, None, None] + 1e-5
        return (x - self.center[:, None, None]) / scale


@pytest.mark.parametrize("name", ["v", "var", "moving_variance"])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_a_buffer_that_is_a_variance_stays_one(name: str, start: float) -> None:
    case = Case(
        build=lambda: Net(
            lambda net, x: net.head(net.norm(net.stem(x)).relu()),
            stem=conv(3, 8),
            norm=OwnNorm(name, start),
            head=head(8),
        ),
        groups={"stem": 8},
    )
    model, example = case.build().eval(), case.example()
    found = trace(model, example)
    assert outcome(proven(model, example, found))[0] == {"stem"}


def test_buffers_keep_their_signs_and_means_of_norms_take_any() -> None:
    model = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 2))
    model.register_buffer("signed", torch.linspace(-1, 1, 64))
    model.register_buffer("rates", torch.linspace(0, 1, 64))
    randomize(model, (torch.randn(8, 64),), torch.Generator().manual_seed(0))
    assert (model.rates > 0).all()
    assert (model[0].running_var > 0).all()
    for values in (model.signed, model[0].running_mean):
        assert (values < 0).any()
        assert (values > 0).any()
