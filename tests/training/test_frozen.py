"""A prefix that is frozen: training goes on as if its learning rate were zero."""

import copy
import io
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evosearch.data.augmentation import Augmentation
from evosearch.data.config import DataConfig
from evosearch.data.splits import TrainSplit, load_search_data
from evosearch.errors import InputError
from evosearch.models.build import ModelConfig, build_model
from evosearch.tasks.scoring import score
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.cutpoints import Graph
from evosearch.training.frozen import FrozenPrefix, Kept
from evosearch.training.parts import Moment
from evosearch.training.trainer import Training
from tests.data.helpers import split_of
from tests.surgery.networks import Net, conv, head
from tests.surgery.trainable import BUILDS, built

SPACE = Path(__file__).parents[2] / "search_spaces" / "digits_resnet.toml"
SCHEDULE = TrainConfig(epochs=2, batch_size=6, lr=0.05)


class Exact(nn.Module):
    """A network in float64, whatever its images are in."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.double()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.inner(x.double())
        return output


def split(name: str, *, crop: bool = False) -> TrainSplit:
    shape = BUILDS[name][1]
    pixels = torch.randn(18, *shape, generator=torch.Generator().manual_seed(5))
    found: TrainSplit = split_of(TrainSplit, pixels, [number % 3 for number in range(18)])
    black = (0.0,) * shape[0]
    return replace(found, augmentation=Augmentation(crop="black" if crop else None, black=black))


def loss_of(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda images, labels: functional.cross_entropy(network(images), labels)


def training(
    model: nn.Module, train: TrainSplit, part: FrozenPrefix, schedule: TrainConfig = SCHEDULE
) -> Training:
    rng = torch.Generator().manual_seed(0)
    return Training(model, train, schedule, loss_of(part), rng, parts=[part])


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("name", ["digits", "mobilenet", "concat"])
def test_a_frozen_prefix_is_one_whose_learning_rate_is_zero(name: str, crop: bool) -> None:
    model, train = Exact(built(name)), split(name, crop=crop)
    reference = copy.deepcopy(model)
    points = Graph(model).points
    point = points[len(points) // 2]
    part = FrozenPrefix(model, train, 0.01)
    ours = training(model, train, part)
    part.restore({"changes": {}, "before": {}, "point": point.name})
    assert part._keeps != crop
    assert part.frozen == point.layers
    list(ours.epochs())

    for layer in point.layers:
        for weight in reference.get_submodule(layer).parameters():
            weight.requires_grad_(False)  # it moves by no rate, and does not decay
    rng = torch.Generator().manual_seed(0)
    resting = [reference.get_submodule(module) for module in point.modules]
    theirs = Training(reference, train, SCHEDULE, loss_of(reference), rng, evaluating=resting)
    list(theirs.epochs())
    moved = dict(Exact(built(name)).state_dict())
    for key, tensor in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], tensor, rtol=0, atol=1e-12)
        still = key.startswith(tuple(f"{layer}." for layer in point.layers))
        assert still == torch.equal(tensor, moved[key])


def test_residual_networks_come_apart_between_their_blocks() -> None:
    model = built("digits")
    names = [point.name for point in Graph(model).points]
    # The first convolution, its norm, the ReLU, three blocks, and the mean before the classifier.
    layers = [point.layers for point in Graph(model).points]
    assert ("conv1", "bn1") in layers
    for block in ("layer1", "layer2", "layer3"):
        inside = [own for own in layers if any(name.startswith(block) for name in own)]
        whole = {
            n for n, m in model.named_modules() if n.startswith(block) and [*m.parameters(False)]
        }
        assert all(whole <= set(own) for own in inside)
    assert not any("linear" in own for own in layers)
    assert len(names) == len(set(names))


def test_both_parts_together_are_the_network() -> None:
    for name in ("resnet", "mobilenet", "concat", "grouped"):
        model = nn.Sequential(built(name))
        images = torch.randn(3, *BUILDS[name][1])
        graph = Graph(model)
        assert len(graph.points) >= 2
        for point in graph.points:
            found = graph.after(point)(graph.before(point)(images))
            assert torch.equal(found, model(images))


def test_what_is_used_again_later_is_no_part_of_a_prefix() -> None:
    """Not a convolution of shared weights, a norm called twice, or a dropout."""
    norm, shared, drop = nn.BatchNorm2d(4), conv(4, 4), nn.Dropout(0.5)

    def run(net: nn.Module, x: Tensor) -> Tensor:
        x = drop(norm(shared(net.first(x))))
        return net.head(drop(norm(shared(x))))

    net = Net(run, first=conv(3, 4), norm=norm, shared=shared, drop=drop, head=head(4))
    layers = [point.layers for point in Graph(nn.Sequential(net)).points]
    before_head = ("0.first", "0.shared", "0.norm")
    assert layers == [("0.first",), *[before_head] * 3]  # behind dropout, the mean, and flatten
    dropping = nn.Sequential(nn.Linear(3, 3), drop, nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 2))
    assert [(p.layers, p.modules) for p in Graph(dropping).points] == [
        (("0",), ("0",)),
        (("0",), ("0", "1")),
        (("0", "2"), ("0", "1", "2")),
        (("0", "2"), ("0", "1", "2", "3")),
    ]


class Branching(nn.Module):
    """A network that looks at what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


def test_a_network_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(InputError, match=r"\[train\] freeze: this network's code cannot be"):
        Graph(Branching())


def test_a_layer_rests_when_three_epochs_changed_it_little_beside_the_first() -> None:
    part = FrozenPrefix(built("digits"), split("digits"), 0.01)
    part._changes = {
        "conv1": [1.0, 0.5, 0.02, 0.006, 0.003],  # the mean of the last three is 0.0097
        "bn1": [1.0, 0.5, 0.02, 0.006, 0.006],
        "linear": [1.0, 0.0, 0.0],
    }
    assert [part._rests(name) for name in part._changes] == [True, False, False]


def test_changes_are_relative_to_the_weights_of_the_epoch_before() -> None:
    model, train = built("digits"), split("digits")
    part = FrozenPrefix(model, train, 0.01)
    part.joined(training(model, train, part))
    with torch.no_grad():
        for epoch, factor in enumerate((1.0, 1.5, 1.1)):
            model.conv1.weight *= factor
            part.before_step(Moment(step=3 * epoch, epoch_steps=3, epochs=9))
    assert part._changes["conv1"] == pytest.approx([0.5, 0.1], abs=1e-6)
    assert part._changes["bn1"] == [0, 0]


def test_what_rests_is_frozen_in_order_and_training_goes_on_after_a_stop() -> None:
    """Stopped after some epoch, it ends in the same weights bit for bit."""
    schedule, train = SCHEDULE.model_copy(update={"epochs": 8}), split("digits")

    def begun() -> tuple[nn.Module, FrozenPrefix, Training]:
        model = built("digits")
        part = FrozenPrefix(model, train, 0.6)
        return model, part, training(model, train, part, schedule)

    model, part, whole = begun()
    saved, frozen = [], []
    for _ in whole.epochs():
        file = io.BytesIO()
        torch.save(whole.state(), file)
        saved.append(file.getvalue())
        frozen.append(len(part.frozen))
    assert frozen == sorted(frozen)
    assert frozen[0] == 0
    assert len(set(frozen)) > 2  # more than once
    for state in saved[2::2]:
        other, _, again = begun()
        again.restore(torch.load(io.BytesIO(state), weights_only=True))
        list(again.epochs())
        for key, tensor in model.state_dict().items():
            assert torch.equal(other.state_dict()[key], tensor)


def test_base_training_freezes_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    init = Kept.__init__
    monkeypatch.setattr(Kept, "__init__", lambda *a: (kept.append(1), init(*a))[1])
    train = split("digits")
    states = []
    for freeze in (None, 0.6, 0.6):
        model = built("digits")
        train_base(model, train, None, TrainConfig(epochs=8, batch_size=6, freeze=freeze), 0)
        assert all(weight.requires_grad for weight in model.parameters())
        assert not model.training
        states.append(model.state_dict())
    assert kept
    assert not torch.equal(states[0]["conv1.weight"], states[1]["conv1.weight"])
    assert all(torch.equal(states[1][key], states[2][key]) for key in states[1])


@pytest.mark.slow
def test_digits_are_learned_in_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without augmentation, at a share that loses next to nothing; seconds are this process's."""
    space = tomllib.loads(SPACE.read_text())
    data = load_search_data(DataConfig(**{**space["data"], "augment": []}))
    kept: list[int] = []
    init = Kept.__init__
    monkeypatch.setattr(Kept, "__init__", lambda *a: (kept.append(1), init(*a))[1])
    seconds, accuracies = [], []
    for freeze in (None, 0.1):
        model = build_model(ModelConfig(**space["model"]), SPACE.parent, seed=0)
        began = time.process_time()
        train_base(model, data.train, None, TrainConfig(epochs=60, freeze=freeze), 0)
        seconds.append(time.process_time() - began)
        accuracies.append(score(model, data.search).accuracy)
    assert len(kept) > 1
    assert seconds[1] < 0.9 * seconds[0]
    assert accuracies[1] > accuracies[0] - 0.02
