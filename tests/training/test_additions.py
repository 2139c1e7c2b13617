"""What takes part in a distillation: penalties, kernels, and a pace to channels that are given."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from evosearch.data.splits import SearchSplit, TrainSplit
from evosearch.errors import InputError
from evosearch.models.precision import fastest_numerics
from evosearch.models.weights import weights_digest
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from evosearch.surgery.narrowing import narrow
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.distillation import FinetuneConfig, distil, distil_blindly
from evosearch.training.epochs import EpochRecord
from evosearch.training.pacing import parse_pace
from evosearch.training.parts import Moment
from evosearch.training.penalties import Penalties
from evosearch.training.towards import EVERY, Goal, Towards
from evosearch.training.wiring import Wired

Few = tuple[TrainSplit, SearchSplit]


def network() -> nn.Module:
    """Three convolutions with 8, 16 and 8 channels, and a linear layer."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 8), (8, 16), (16, 8)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs)]
        layers += [nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 10))


CONV = "6"
QUICK = FinetuneConfig(epochs=3, batch_size=32)


@pytest.fixture(scope="module")
def whole(few: Few) -> tuple[nn.Module, Discovery]:
    torch.set_num_threads(1)
    model = network()
    discovery = discover(model, (torch.randn(2, 1, 8, 8),), GroupRules(), 0)
    train_base(model, few[0], None, TrainConfig(epochs=5, batch_size=32), 0)
    return model, discovery


@pytest.fixture(scope="module")
def goal(whole: tuple[nn.Module, Discovery]) -> Goal:
    rng = np.random.default_rng(0)
    sizes = whole[1].space.sizes
    scores = {name: rng.random(size) for name, size in sizes.items()}
    return Goal(mask=half(sizes), scores=scores)


def half(sizes: Any) -> Mask:
    """Returns the mask of every second channel."""
    return Mask({name: np.arange(size) % 2 == 0 for name, size in sizes.items()})


class Tuning:
    """Distils one student, from the same beginning each time."""

    def __init__(self, whole: tuple[nn.Module, Discovery], goal: Goal, few: Few) -> None:
        self._teacher, self._discovery = whole
        self._goal, self._few = goal, few
        self.epochs: list[int] = []

    def __call__(
        self,
        config: FinetuneConfig,
        progress: Path | None = None,
        stop: int | None = None,
        goal: Goal | None = None,
        watch: Callable[[nn.Module], None] | None = None,
    ) -> nn.Module:
        paced = config.pace is not None
        discovery = self._discovery
        if paced:
            student = copy.deepcopy(self._teacher)
        else:
            student = compact(self._teacher, discovery.space.groups, self._goal.mask).eval()
            discovery = narrow(discovery, self._goal.mask)
        if watch is not None:
            student.register_forward_pre_hook(lambda module, _: watch(module))

        def on_epoch(record: EpochRecord) -> None:
            self.epochs.append(record.epoch)
            if record.epoch == stop:
                raise Stopped

        distil(
            self._teacher,
            student,
            *self._few,
            config,
            0,
            on_epoch,
            progress=progress,
            discovery=discovery,
            goal=(goal or self._goal) if paced else None,
        )
        return student


class Stopped(Exception):
    pass


@pytest.fixture
def tuning(whole: tuple[nn.Module, Discovery], goal: Goal, few: Few) -> Tuning:
    return Tuning(whole, goal, few)


KINDS: dict[str, dict[str, Any]] = {
    "penalties": {"penalties": {"group_lasso": 1e-3, "polarization": 1e-3}},
    "orepa": {"kernels": "orepa", "optimizer": "muon"},
    "2:4": {"kernels": "2:4", "penalties": {"orthogonality": 1e-2}},
    "zeros": {"kernels": "zeros", "attention": 1.0},
    "pace": {"pace": {"name": "linear", "end": 0.7}},
    "pace and penalties": {"pace": "cubic", "penalties": {"bn_l1": 1e-3}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_stopped_goes_on_to_the_same_weights(
    kind: str, tuning: Tuning, tmp_path: Path
) -> None:
    config = QUICK.model_copy(update=KINDS[kind])
    expected = weights_digest(tuning(config))
    for epoch in (1, 3):
        with pytest.raises(Stopped):
            tuning(config, tmp_path / "progress", stop=epoch)
    tuning.epochs.clear()
    assert weights_digest(tuning(config, tmp_path / "progress")) == expected
    assert tuning.epochs == [3]
    assert weights_digest(tuning(QUICK)) != expected


def test_no_additions_change_nothing(
    tuning: Tuning, whole: tuple[nn.Module, Discovery], goal: Goal, few: Few
) -> None:
    """The groups of a student are for its additions alone, and empty ones are none."""
    model, discovery = whole
    plain = compact(model, discovery.space.groups, goal.mask).eval()
    distil(model, plain, *few, QUICK, 0)
    for update in ({}, {"kernels": "plain"}, {"penalties": {}}, {"penalties": {"bn_l1": 0.0}}):
        assert weights_digest(tuning(QUICK.model_copy(update=update))) == weights_digest(plain)


# Penalties


@pytest.mark.parametrize("name", ["group_lasso", "bn_l1", "orthogonality", "lowest_l1"])
def test_a_penalty_lowers_what_it_is_about(
    name: str, tuning: Tuning, whole: tuple[nn.Module, Discovery], goal: Goal
) -> None:
    discovery = narrow(whole[1], goal.mask)

    def value(student: nn.Module) -> float:
        found = Penalties({name: 1.0}, Wired.of(student, discovery))()
        assert isinstance(found, Tensor)
        return found.item()

    config = QUICK.model_copy(update={"penalties": {name: 1e-2}})
    assert value(tuning(config)) < value(tuning(QUICK))


def test_a_base_training_is_penalised(whole: tuple[nn.Module, Discovery], few: Few) -> None:
    weights = []
    for penalties in (None, {"bn_l1": 0.0}, {"bn_l1": 1e-2}):
        model = network()
        config = TrainConfig(epochs=1, batch_size=32, penalties=penalties)
        train_base(model, few[0], None, config, 0, discovery=whole[1])
        scales = [m.weight.abs().sum().item() for m in model.modules() if hasattr(m, "momentum")]
        weights.append((weights_digest(model), sum(scales)))
    assert weights[0] == weights[1]
    assert weights[2][1] < weights[0][1]


# Kernels


@pytest.mark.parametrize("kind", ["orepa", "2:4", "zeros"])
def test_what_is_kept_is_plain(
    kind: str, tuning: Tuning, whole: tuple[nn.Module, Discovery], goal: Goal
) -> None:
    student = tuning(QUICK.model_copy(update={"kernels": kind}))
    cut = compact(whole[0], whole[1].space.groups, goal.mask)
    assert not any(parametrize.is_parametrized(module) for module in student.modules())
    shapes = {name: tensor.shape for name, tensor in student.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in cut.state_dict().items()}
    weight = student.get_submodule(CONV).weight
    share = (weight == 0).double().mean().item()
    assert share == {"orepa": 0.0, "2:4": 0.5}.get(kind, share)
    assert (share > 0) == (kind != "orepa")
    if kind == "2:4":
        blocks = (weight.movedim(1, -1).reshape(-1, 4) != 0).sum(1)
        assert (blocks == 2).all()


def test_branches_are_spared_weight_decay(tuning: Tuning) -> None:
    """With no rate but decay's nothing else moves the factors from their first values."""
    seen: list[Tensor] = []

    def watch(module: nn.Module) -> None:
        conv = module.get_submodule(CONV)
        if parametrize.is_parametrized(conv):
            scales = conv.get_parameter("parametrizations.weight.0.scales")
            seen.append(scales.detach().clone())

    update = {"kernels": "orepa", "lr": 1e-12, "weight_decay": 1e10, "epochs": 1}
    tuning(QUICK.model_copy(update=update), watch=watch)
    assert torch.equal(seen[0][0], torch.ones_like(seen[0][0]))
    assert not seen[0][1:].any()
    torch.testing.assert_close(seen[-1], seen[0], rtol=0, atol=1e-6)


# A pace


def test_channels_go_least_important_first() -> None:
    mask = Mask({"a": np.array([1, 0, 0], bool), "b": np.array([0, 1, 0, 0], bool)})
    scores = {"a": np.array([0.0, 0.3, 0.1]), "b": np.array([0.2, 0.0, 0.3, 0.4])}
    goal = Goal(mask=mask, scores=scores)
    assert goal.order == (("a", 2), ("b", 0), ("a", 1), ("b", 2), ("b", 3))
    full = Mask({"a": np.ones(3, bool), "b": np.ones(4, bool)})
    assert goal.on_the_way(0.0) == full
    assert goal.on_the_way(1.0) == mask
    halfway = goal.on_the_way(0.4)  # 2 of 5
    assert halfway["a"].tolist() == [True, True, False]
    assert halfway["b"].tolist() == [False, True, True, True]


class Recorder:
    """A training that can be cut, as `Towards` sees it."""

    model, discovery = None, object()

    def __init__(self, mask: Mask) -> None:
        self.mask, self.cuts = mask, 0

    def cut(self, mask: Mask) -> None:
        self.mask = self.mask.then(mask)
        self.cuts += 1


@pytest.mark.parametrize("name", ["one_cycle", "cubic", "linear", "steps", "start", "at"])
def test_the_network_is_where_its_pace_says(name: str) -> None:
    count, epochs, epoch_steps = 200, 10, 40
    mask = Mask({"a": np.arange(count) < 2})
    goal = Goal(mask=mask, scores={"a": np.arange(count)[::-1].astype(float)})
    pace = parse_pace(name, epochs)
    host = Recorder(goal.on_the_way(0.0))
    part = Towards(goal, pace)
    part.joined(host)  # type: ignore[arg-type]
    for step in range(epochs * epoch_steps):
        moment = Moment(step=step, epoch_steps=epoch_steps, epochs=epochs)
        part.before_step(moment)
        gone = count - host.mask.widths["a"]
        if moment.t >= pace.ends:
            assert host.mask == mask
        elif step % EVERY == 0:
            assert gone == round(pace.share(moment.t) * (count - 2))
    assert host.mask == mask
    assert host.cuts <= epochs * epoch_steps / EVERY + 1


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("name", ["one_cycle", "cubic", "linear", "steps"])
def test_so_few_steps_that_none_comes_after_the_pace_end_at_the_plan(
    name: str, steps: int
) -> None:
    mask = Mask({"a": np.arange(9) < 2})
    goal = Goal(mask=mask, scores={"a": np.arange(9).astype(float)})
    host, part = Recorder(goal.on_the_way(0.0)), Towards(goal, parse_pace(name, 4))
    part.joined(host)  # type: ignore[arg-type]
    for step in range(steps):
        part.before_step(Moment(step=step, epoch_steps=1, epochs=steps))
    assert host.mask == mask


def test_a_pace_ends_at_the_plan_exactly(
    tuning: Tuning, whole: tuple[nn.Module, Discovery], goal: Goal
) -> None:
    widths: list[int] = []
    student = tuning(
        QUICK.model_copy(update={"pace": "linear", "epochs": 8}),
        watch=lambda module: widths.append(len(module.get_submodule("3").weight)),
    )
    expected = compact(whole[0], whole[1].space.groups, goal.mask)
    shapes = {name: tensor.shape for name, tensor in student.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in expected.state_dict().items()}
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) >= 3
    assert widths[0] == 16


def test_a_start_is_the_cut_network_trained(
    tuning: Tuning, whole: tuple[nn.Module, Discovery], goal: Goal
) -> None:
    """Of the same images, and as good as begun from the cut network: bit for bit."""
    paced = tuning(QUICK.model_copy(update={"pace": "start"}))
    assert weights_digest(paced) == weights_digest(tuning(QUICK))


def test_the_progress_to_another_goal_is_not_taken(
    tuning: Tuning, goal: Goal, tmp_path: Path
) -> None:
    config = QUICK.model_copy(update={"pace": "linear"})
    with pytest.raises(Stopped):
        tuning(config, tmp_path / "progress", stop=3)
    turned = Goal(mask=goal.mask, scores={name: -own for name, own in goal.scores.items()})
    expected = tuning(config, goal=turned)
    assert weights_digest(tuning(config, tmp_path / "progress", goal=turned)) == weights_digest(
        expected
    )


# Bad input

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown penalty": ({"penalties": {"bn_l2": 1.0}}, "did you mean 'bn_l1'"),
    "a negative penalty": ({"penalties": {"bn_l1": -1.0}}, "bn_l1 = -1: expected a weight of 0"),
    "unknown kernels": ({"kernels": "orpea"}, r"\[finetune\] kernels: unknown kernels 'orpea'"),
    "no N:M": ({"kernels": "4:4"}, "N:M with 1 <= N < M"),
    "an unknown pace": ({"pace": "cubical"}, r"\[finetune\] pace: unknown pace .*'cubic'"),
    "a pace that ends late": ({"pace": {"name": "linear", "end": 0.9}}, "ends after 89%"),
    "a pace by a record": ({"pace": "epi"}, "here the plan is given"),
    "a pace by a drop": ({"pace": "slack"}, "for evosearch train --accuracy-drop"),
    "a late epoch": ({"pace": {"name": "at", "epoch": 30}}, "of a training of 20 epochs"),
    "a pace and kernels": ({"pace": "linear", "kernels": "2:4"}, "leave one of the two out"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused_where_it_is_read(name: str) -> None:
    given, message = BAD[name]
    with pytest.raises(InputError, match=message):
        FinetuneConfig(**given)


def test_a_pace_is_checked_against_the_epochs_that_are_made(tuning: Tuning) -> None:
    config = FinetuneConfig(pace={"name": "at", "epoch": 5}, batch_size=32)
    with pytest.raises(InputError, match="epoch 5 of a training of 2 epochs"):
        tuning(config.model_copy(update={"epochs": 2}))


def test_what_an_addition_needs_is_asked_for(whole: tuple[nn.Module, Discovery], few: Few) -> None:
    mask = whole[1].space.full_mask()
    for update in KINDS.values():
        with pytest.raises(ValueError, match="channel groups"):
            distil(
                whole[0],
                whole[0],
                *few,
                QUICK.model_copy(update=update),
                0,
                goal=Goal(mask=mask, scores={}),
            )
    paced = QUICK.model_copy(update={"pace": "linear"})
    with pytest.raises(ValueError, match="goal"):
        distil(whole[0], whole[0], *few, paced, 0, discovery=whole[1])


def test_candidates_recover_without_additions(
    whole: tuple[nn.Module, Discovery], few: Few
) -> None:
    digests = []
    for update in ({}, KINDS["2:4"], KINDS["pace"]):
        student = copy.deepcopy(whole[0])
        config = QUICK.model_copy(update={"epochs": 1, **update})
        numerics = fastest_numerics(torch.device("cpu"), precision="float32")
        distil_blindly(whole[0], student, few[0], config, 0, numerics=numerics)
        digests.append(weights_digest(student))
    assert len(set(digests)) == 1


def test_settings_say_what_is_set() -> None:
    """Keys of later versions change no digest of what was begun before."""
    assert set(FinetuneConfig().settings) == {
        "epochs",
        "batch_size",
        "lr",
        "weight_decay",
        "optimizer",
        "temperature",
        "alpha",
        "precision",
        "attention",
        "attention_layers",
    }
    given = FinetuneConfig(kernels="2:4", penalties={"bn_l1": 1e-4}).settings
    assert given["kernels"] == "2:4"
    assert FinetuneConfig(**given) == FinetuneConfig(kernels="2:4", penalties={"bn_l1": 1e-4})
