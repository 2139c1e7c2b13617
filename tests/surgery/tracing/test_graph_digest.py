"""What changes the digest of a model's graphs, and what does not."""

import os
import random
import subprocess
import sys
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from evosearch.errors import TracingError
from evosearch.models.zoo import digits_resnet
from evosearch.surgery.tracing.graph_digest import graph_digest

EXAMPLE = (torch.zeros(2, 3, 8, 8),)
Pair = namedtuple("Pair", "out aux")
Other = namedtuple("Other", "aux out")


class Net(nn.Module):
    """A small network of which every part can be another."""

    def __init__(
        self, *, act=functional.relu, scale=(1.0, 2.0), drop=0.1, groups=1, wrap=lambda y, x: y
    ):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, groups=groups)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 2)
        self.act, self.scale, self.drop, self.wrap = act, scale, drop, wrap

    def forward(self, x):
        features = self.act(self.norm(self.conv(x))).mean((2, 3))
        features = functional.dropout(features, self.drop, self.training)
        return self.wrap(self.head(features) * torch.tensor(self.scale), features)


class Renamed(Net):
    """The same computation, written by someone else."""

    def forward(self, pixels):
        """With other names."""
        maps = self.conv(pixels)
        maps = self.act(self.norm(maps))
        vector = functional.dropout(maps.mean(dim=(2, 3)), self.drop, self.training)
        logits = self.head(vector)
        return self.wrap(logits * torch.tensor(self.scale), vector)


def digest(model=None, example=EXAMPLE):
    return graph_digest(Net() if model is None else model, example)


@pytest.fixture(scope="module")
def plain():
    return graph_digest(Net(), EXAMPLE)


def test_weights_modes_names_and_the_example_do_not_count(plain):
    torch.manual_seed(3)
    assert digest(Net()) == plain
    assert digest(Net().eval()) == plain
    assert digest(Net(), (torch.ones(2, 3, 8, 8),)) == plain
    assert digest(Renamed()) == plain


@pytest.mark.parametrize(
    "other",
    [
        {"act": functional.softsign},
        {"act": nn.ReLU6()},
        {"scale": (1.0, 2.5)},
        {"drop": 0.2},
        {"groups": 3},
        {"wrap": lambda y, x: {"out": y}},
        {"wrap": lambda y, x: (y,)},
        {"wrap": lambda y, x: (x, y)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_every_operator_argument_and_constant_counts(plain, other):
    assert digest(Net(**other)) != plain


def test_what_shows_in_training_alone_counts():
    class Deep(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.conv, self.rate = nn.Conv2d(3, 4, 1), rate

        def forward(self, x):
            y = self.conv(x)
            return y * torch.empty(2, 1, 1, 1).bernoulli_(1 - self.rate) if self.training else y

    assert digest(Deep(0.1)) == digest(Deep(0.1)) != digest(Deep(0.2))


def test_a_layer_that_is_not_trained_is_another_network(plain):
    model = Net()
    model.conv.requires_grad_(False)
    assert digest(model) != plain


def test_names_of_outputs_count():
    both = [digest(Net(wrap=kind)) for kind in (Pair, Other, Pair, lambda y, x: (y, x))]
    assert both[0] == both[2]
    assert len(set(both)) == 3


def test_weights_that_change_places_are_told_apart():
    class Two(nn.Module):
        def __init__(self, swap):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.swap = swap

        def forward(self, x):
            return self.a(self.b(x).relu()) if self.swap else self.b(self.a(x).relu())

    assert digest(Two(False)) != digest(Two(True))


def test_the_order_in_which_layers_are_made_does_not_count():
    class Ordered(nn.Module):
        def __init__(self, names):
            super().__init__()
            for name in names:
                setattr(self, name, nn.Conv2d(3, 3, 1))

        def forward(self, x):
            return self.b(self.a(x))

    assert digest(Ordered("ab")) == digest(Ordered("ba")) != digest(Ordered("abc"))


def test_constants_on_modules_count_and_buffers_go_with_the_weights():
    class Held(nn.Module):
        def __init__(self, value, *, buffer):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            if buffer:
                self.register_buffer("table", torch.full((8,), value), persistent=False)
            else:
                self.table = torch.full((8,), value)

        def forward(self, x):
            return self.conv(x) + self.table

    assert digest(Held(1.0, buffer=False)) != digest(Held(2.0, buffer=False))
    assert digest(Held(1.0, buffer=True)) == digest(Held(2.0, buffer=True))


def test_graphs_within_a_graph_count():
    class Branches(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.conv, self.factor = nn.Conv2d(3, 3, 1), factor

        def forward(self, x):
            with torch.no_grad():
                weight = x.mean() * self.factor
            return self.conv(x) * weight

    assert digest(Branches(2.0)) == digest(Branches(2.0)) != digest(Branches(3.0))


def test_a_model_and_the_generators_are_left_as_they_were():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 3, 1), None

        def forward(self, x):
            self.last = self.conv(x)
            return self.last if random.random() < 0.5 else 2 * self.last

    model = Keeps().train()
    random.seed(1)
    torch.manual_seed(1)
    states = random.getstate(), torch.get_rng_state()
    first = digest(model)
    assert model.last is None
    assert model.training
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert all(digest(model) == first for _ in range(5) if random.random() >= 0)


def test_what_numpy_draws_in_a_call_does_not_count():
    drawn: Any = np.random  # the global generator, that models of others use

    class Noisy(Net):
        def forward(self, x):
            return super().forward(x) + float(drawn.rand())

    model = Noisy()
    drawn.seed(1)
    state = drawn.get_state()[1].copy()
    first = digest(model)
    assert np.array_equal(drawn.get_state()[1], state)
    drawn.rand()
    assert digest(model) == first


def test_training_that_cannot_be_exported_is_left_out():
    class Picky(Net):
        def forward(self, x):
            if self.training and float(x.sum()) > 0:
                return x
            return super().forward(x)

    assert digest(Picky()) == digest(Picky()) != digest(Picky(act=functional.softsign))


def test_a_model_that_cannot_be_exported():
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("no such thing\nand more")

    with pytest.raises(TracingError, match="Broken cannot be traced by"):
        digest(Broken())


SCRIPT = """
import torch
from evosearch.models.zoo import digits_resnet
from evosearch.surgery.tracing.graph_digest import graph_digest
print(graph_digest(digits_resnet(), (torch.zeros(2, 1, 8, 8),)))
"""


def test_every_process_finds_the_same():
    here = graph_digest(digits_resnet(), (torch.zeros(2, 1, 8, 8),))
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == here
