"""Random networks composed of every operator: what is offered to the search is always right."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from evosearch.surgery.compaction import compact, masked
from evosearch.surgery.discovery import GroupRules, discover
from tests.surgery.cases import random_masks
from tests.surgery.networks import conv, head, randomized
from tests.surgery.test_counting import measured

OPERATORS = (
    *("conv", "grouped", "transposed", "norm", "activation", "scale", "shuffle", "flip", "roll"),
    *("position_norm", "channel_norm", "resize", "squeeze_excite", "spatial_gate", "unpixel"),
    *("pixel", "gated_halves", "halves", "cut", "pad", "shared"),
)

Step = tuple[Any, ...]
"""Name of an operator, two numbers that settle its details, and the steps of its branches."""


class Apply(nn.Module):
    """A function of the input and of modules."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


class Scale(nn.Module):
    """A parameter and a buffer of channel shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.register_buffer("shift", torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def divisor(number: int, choice: int) -> int:
    """Returns one of the divisors of a number."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return divisors[choice % len(divisors)]


def shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def make(step: Step, c: int) -> tuple[nn.Module, int]:
    """Returns the module of a step that reads `c` channels, and how many it writes."""
    name, a, b = step[:3]
    out, d = 2 + a % 9, divisor(c, a)
    half = c // 2
    cut = 1 + a % (c - 1)
    if name == "conv":
        return nn.Sequential(conv(c, out, 1 + 2 * (b % 2), bias=b % 3 > 0), nn.ReLU()), out
    if name == "grouped":
        return conv(c, d * (1 + b % 3), groups=d), d * (1 + b % 3)
    if name == "transposed":
        return nn.ConvTranspose2d(c, d * (1 + b % 3), 3, padding=1, groups=d), d * (1 + b % 3)
    if name == "norm":
        return (nn.BatchNorm2d(c), nn.GroupNorm(d, c), nn.InstanceNorm2d(c))[b % 3], c
    if name == "activation":
        return (nn.PReLU(c), nn.Hardswish(), nn.Sigmoid(), nn.GELU())[b % 4], c
    if name == "scale":
        return Scale(c), c
    if name == "shuffle":
        return (Apply(lambda x: shuffle(x, d)) if b % 2 else nn.ChannelShuffle(d)), c
    if name == "flip":
        return Apply(lambda x: x.flip(1)), c
    if name == "roll":
        return Apply(lambda x: x.roll(a, 1 + b % 2)), c
    if name == "position_norm":
        return Apply(lambda x: F.layer_norm(x, x.shape[2:])), c
    if name == "channel_norm":
        return Apply(
            lambda x, norm: norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.LayerNorm(c)
        ), c
    if name == "resize":
        return Apply(lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:])), c
    if name == "squeeze_excite":
        gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, out, 1), nn.ReLU(), nn.Conv2d(out, c, 1)
        )
        return Apply(lambda x, gate: x * gate(x).sigmoid(), gate), c
    if name == "spatial_gate":
        return Apply(lambda x, gate: x * gate(x).sigmoid(), conv(c, 1)), c
    if name == "unpixel":
        return Apply(lambda x: F.pixel_unshuffle(F.interpolate(x, scale_factor=2), 2)), 4 * c
    if name == "pixel" and c % 4 == 0:
        return Apply(lambda x: F.max_pool2d(F.pixel_shuffle(x, 2), 2)), c // 4
    if name == "gated_halves" and c % 2 == 0:
        return Apply(lambda x: F.glu(x, 1)), half
    if name == "halves" and c % 2 == 0:
        split = [
            lambda x: x.chunk(2, 1),
            lambda x: x.split(half, 1),
            lambda x: x.split(x.shape[1] // 2, 1),
            lambda x: (x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]),
            lambda x: (x[:, ::2], x[:, 1::2]),
        ][b % 5]
        return Apply(lambda x, f: torch.cat([f(split(x)[0]), split(x)[1]], 1), conv(half, out)), (
            out + half
        )
    if name == "cut":
        take = [
            lambda x: x[:, :cut],
            lambda x: x[:, -cut:],
            lambda x: x.split([cut, c - cut], 1)[0],
        ]
        return Apply(take[b % 3]), cut
    if name == "pad":
        return Apply(lambda x: F.pad(x, (0, 0, 0, 0, a % 3, -(b % 2)))), c + a % 3 - b % 2
    if name == "shared":
        return Apply(lambda x, f: f(f(x).relu()), conv(c, c)), c
    if name == "residual":
        branch, width = chain(step[3], c)
        back = conv(width, c)
        return Apply(lambda x, f, g: x + g(f(x)), branch, back), c
    if name == "concat":
        left, width = chain(step[3], c)
        right, other = chain(step[4], c)
        return Apply(lambda x, f, g: torch.cat([f(x), g(x)], 1), left, right), width + other
    if name == "sum":
        left, width = chain(step[3], c)
        right, other = chain(step[4], c)
        meet = conv(width, other)
        return Apply(lambda x, f, g, h: g(x) * h(f(x)), left, right, meet), other
    return nn.Identity(), c


def chain(steps: list[Step], c: int) -> tuple[nn.Module, int]:
    modules = []
    for step in steps:
        if c < 2 or c > 48:
            modules.append(conv(c, 6))
            c = 6
        module, c = make(step, c)
        modules.append(module)
    return nn.Sequential(*modules), c


def network(steps: list[Step], flat: bool) -> nn.Module:
    body, c = chain(steps, 8)
    tail = nn.Sequential(nn.Flatten(), nn.Linear(7 * 16, 5)) if flat else head(7)
    return nn.Sequential(conv(3, 8), nn.ReLU(), body, conv(c, 7), nn.ReLU(), tail)


numbers = st.integers(0, 60)
simple = st.tuples(
    st.sampled_from(OPERATORS),
    numbers,
    numbers,
)
branches = st.lists(simple, max_size=3)
branching = st.tuples(
    st.sampled_from(["residual", "concat", "sum"]), numbers, numbers, branches, branches
)
networks = st.tuples(st.lists(simple | branching, min_size=1, max_size=6), st.booleans())


def check(drawn: tuple[list[Step], bool]) -> None:
    """Whatever is offered is exact, under masks and weights that the proof never saw."""
    model = randomized(network(*drawn), seed=11).double()
    random = torch.Generator().manual_seed(12)
    example = (torch.randn(2, 3, 4, 4, generator=random, dtype=torch.float64),)
    found = discover(model, example, GroupRules(), seed=5)
    space = found.space
    assert "3" in space.sizes  # the last convolution can always be pruned
    for mask in random_masks(space, 3, seed=6):
        with torch.no_grad(), masked(model, space.groups, found.layers, mask) as reference:
            expected = reference(*example)
        small = compact(model, space.groups, mask)
        with torch.no_grad():
            torch.testing.assert_close(small(*example), expected, rtol=1e-8, atol=1e-8)
        # Bytes have oracles of their own in test_peakmemory.py and test_filesize.py.
        assert replace(space.cost(mask), memory=0, size=0) == measured(small, example)


options = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@settings(options, max_examples=15)
@given(networks)
def test_random_networks(drawn: tuple[list[Step], bool]) -> None:
    check(drawn)


@pytest.mark.slow
@settings(options, max_examples=200)
@given(networks)
def test_many_random_networks(drawn: tuple[list[Step], bool]) -> None:
    check(drawn)
