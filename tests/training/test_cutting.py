"""A training that is cut goes on as if the dropped channels had been held at zero."""

import copy
import io
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evosearch.data.splits import TrainSplit
from evosearch.errors import InputError
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact, dropped_positions
from evosearch.surgery.narrowing import narrow
from evosearch.training.base_training import TrainConfig
from evosearch.training.optimizers import OPTIMIZERS, KernelMuon
from evosearch.training.parts import Moment, Part
from evosearch.training.trainer import Training
from tests.data.helpers import split_of
from tests.surgery.trainable import BUILDS, built, found

SCHEDULE = TrainConfig(epochs=1, batch_size=6, lr=0.1)
STEPS, BEFORE = 5, 2


class At(Part):
    """Does something before one step, and something after each from there on."""

    def __init__(self, now: Callable[[], None], then: Callable[[], None] = lambda: None) -> None:
        self._now, self._then, self._steps = now, then, 0

    def before_step(self, moment: Moment) -> None:
        assert moment.t == pytest.approx(self._steps / STEPS)
        assert moment.begins_epoch == (self._steps == 0)
        if self._steps == BEFORE:
            self._now()

    def after_step(self, images: int) -> None:
        assert images == SCHEDULE.batch_size
        self._steps += 1
        if self._steps > BEFORE:
            self._then()


def images(name: str) -> TrainSplit:
    random = torch.Generator().manual_seed(5)
    pixels = torch.randn(STEPS * SCHEDULE.batch_size, *BUILDS[name][1], generator=random)
    return split_of(TrainSplit, pixels, [number % 3 for number in range(len(pixels))])


def half(name: str, seed: int = 0) -> Mask:
    space = found(name).space
    rng = np.random.default_rng(seed)
    widths = [max(2, group.size // 2) for group in space.groups]
    return space.top_channels(np.array(widths), {g.name: rng.random(g.size) for g in space.groups})


def begun(
    name: str,
    model: nn.Module,
    part: Part | None = None,
    optimizer: str = "sgd",
    schedule: TrainConfig = SCHEDULE,
):
    model.double()

    def loss(pixels: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(model(pixels.double()), labels)

    rng = torch.Generator().manual_seed(0)
    parts = [] if part is None else [part]
    return Training(
        model,
        images(name),
        schedule,
        loss,
        rng,
        optimizer=optimizer,
        discovery=found(name),
        parts=parts,
    )


def trained_with(name: str, make_part: Callable[[Training], Part], optimizer: str = "sgd"):
    """Returns a network after `STEPS` steps of one epoch, and its training."""
    model = built(name)
    training = begun(name, model, optimizer=optimizer)
    training._parts = (make_part(training),)
    list(training.epochs())
    return model, training


def hold_at_zero(training: Training, name: str, mask: Mask) -> None:
    """Zeroes what reads dropped channels, and its momentum."""
    drops = dropped_positions(found(name).space.groups, mask)
    (optimizer,) = training._optimizers
    parameters = dict(training._model.named_parameters())
    with torch.no_grad():
        for weight, dim in {(layer.weight, layer.reads) for layer in found(name).layers}:
            gone = None if dim is None else drops.get(weight, {}).get(dim)
            if gone is not None:
                index = torch.from_numpy(gone)
                parameters[weight].index_fill_(dim, index, 0)
                optimizer.state[parameters[weight]]["momentum_buffer"].index_fill_(dim, index, 0)


def holding(name: str, mask: Mask, training: Training) -> Part:
    def hold() -> None:
        hold_at_zero(training, name, mask)

    return At(hold, hold)


def largest_difference(small: nn.Module, other: nn.Module) -> float:
    pairs = zip(small.state_dict().values(), other.state_dict().values(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("name", BUILDS)
def test_a_cut_training_equals_one_with_the_channels_held_at_zero(name: str) -> None:
    """The same sums with zeros among what is added: equal but for the last bits of float64."""
    mask, groups = half(name), found(name).space.groups
    small, training = trained_with(name, lambda own: At(lambda: own.cut(mask)))
    whole, held = trained_with(name, partial(holding, name, mask))
    assert largest_difference(small, compact(whole, groups, mask)) < 1e-14
    assert largest_difference(small, compact(built(name).double(), groups, mask)) > 0.1
    assert training.mask == mask
    assert training.discovery == narrow(found(name), mask)
    (rate,), (other,) = (
        [g["lr"] for g in t._optimizers[0].param_groups] for t in (training, held)
    )
    assert rate == other == 0.0


@pytest.mark.parametrize("name", BUILDS)
def test_what_is_silenced_after_each_step_is_held_at_zero(name: str) -> None:
    """Bit for bit, momentum too: what it remembered would move channels that come back."""
    mask = half(name)

    def silencing(own: Training) -> Part:
        return At(lambda: own.silence(mask), lambda: own.silence(mask))

    ends = [trained_with(name, part) for part in (silencing, partial(holding, name, mask))]
    assert largest_difference(ends[0][0], ends[1][0]) == 0.0
    assert ends[0][1].mask == found(name).space.full_mask()
    momenta = [
        [state["momentum_buffer"] for state in training._optimizers[0].state.values()]
        for _, training in ends
    ]
    assert all(torch.equal(own, other) for own, other in zip(*momenta, strict=True))


def test_momentum_that_is_lost_is_told_apart() -> None:
    mask = half("digits")
    small, _ = trained_with("digits", lambda own: At(lambda: own.cut(mask)))

    def forgetting(own: Training) -> Part:
        def forget() -> None:
            own.cut(mask)
            own._optimizers[0].state.clear()

        return At(forget)

    other, _ = trained_with("digits", forgetting)
    assert largest_difference(small, other) > 1e-3


class Rebuilt(Part):
    """Goes on in a compact copy of the network, with new optimizers and the state, cut alike.

    Optimizer state is a network: momentum in the place of the weights of a copy is compacted with
    it, and read out again.
    """

    def __init__(self, training: Training, name: str, mask: Mask) -> None:
        self._training, self._mask, self._steps = training, mask, 0
        self._groups = found(name).space.groups

    def before_step(self, moment: Moment) -> None:
        self._steps += 1
        if self._steps == BEFORE + 1:
            self._rebuild()

    def _rebuild(self) -> None:
        training, model = self._training, self._training._model
        states = copy.deepcopy(model)
        for name, parameter in model.named_parameters():
            for optimizer in training._optimizers:
                kernels = optimizer.param_groups[0]["params"]
                if isinstance(optimizer, KernelMuon):
                    places = [
                        matrix
                        for kernel, matrix in zip(optimizer._kernels, kernels, strict=True)
                        if kernel is parameter
                    ]
                else:
                    places = [own for own in kernels if own is parameter]
                for place in places:
                    buffer = optimizer.state[place]["momentum_buffer"]
                    states.get_parameter(name).data = buffer.view_as(parameter).clone()
        small = compact(model, self._groups, self._mask)
        states = compact(states, self._groups, self._mask)
        for name, module in small.named_modules():  # the loss holds the old modules
            own = model.get_submodule(name)
            own.__dict__.update(module.__dict__)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        kind = "muon" if len(training._optimizers) == 2 else "sgd"
        rates = [group["lr"] for o in training._optimizers for group in o.param_groups]
        training._optimizers[:] = OPTIMIZERS[kind](model, SCHEDULE.lr, SCHEDULE.weight_decay)
        for optimizer, rate, cosine in zip(
            training._optimizers, rates, training._cosines, strict=True
        ):
            (group,) = optimizer.param_groups
            group["lr"], group["initial_lr"] = rate, cosine.base_lrs[0]
            cosine.optimizer = optimizer
            own = optimizer._kernels if isinstance(optimizer, KernelMuon) else group["params"]
            for parameter, place in zip(own, group["params"], strict=True):
                momentum = states.get_parameter(names[id(parameter)]).detach()
                optimizer.state[place]["momentum_buffer"] = momentum.view_as(place).clone()
                optimizer.state[place]["step"] = BEFORE


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.parametrize("name", ["digits", "concat", "grouped"])
def test_cutting_in_place_is_rebuilding(name: str, optimizer: str) -> None:
    """Bit for bit, with Muon too."""
    mask = half(name)
    small, _ = trained_with(name, lambda own: At(lambda: own.cut(mask)), optimizer)
    other, _ = trained_with(name, lambda own: Rebuilt(own, name, mask), optimizer)
    assert largest_difference(small, other) == 0.0


def test_muon_moves_a_cut_kernel_as_one_with_rows_and_columns_of_zeros() -> None:
    """Its direction; the length of a step is that of the smaller matrix."""
    torch.manual_seed(0)
    whole = nn.Parameter(torch.randn(4, 6, 3, 3))
    rows, columns = torch.tensor([0, 2, 3]), torch.tensor([1, 2, 4, 5])
    momentum = torch.zeros(4, 6, 3, 3)
    momentum[rows[:, None], columns] = torch.randn(3, 4, 3, 3)
    small = nn.Parameter(whole.detach()[rows][:, columns].clone())
    moved = []
    for kernel, buffer in ((whole, momentum), (small, momentum[rows][:, columns])):
        before = kernel.detach().clone()
        optimizer = KernelMuon([kernel], lr=0.1, weight_decay=0.0)
        (matrix,) = optimizer.param_groups[0]["params"]
        optimizer.state[matrix]["momentum_buffer"] = buffer.flatten(1).clone()
        kernel.grad = torch.zeros_like(kernel)
        optimizer.step()
        moved.append(kernel.detach() - before)
    step, expected = moved[0], moved[1]
    torch.testing.assert_close(step[rows][:, columns], expected, rtol=0.02, atol=2e-4)
    assert not step[1].any()
    assert not step[:, [0, 3]].any()
    assert expected.abs().max() > 0.02


def test_modules_hooks_and_groups_of_parameters_stay() -> None:
    model = built("digits")
    training = begun("digits", model)
    widths = []
    model.layer1.register_forward_hook(lambda _m, _i, out: widths.append(out.shape[1]))
    (optimizer,) = training._optimizers
    group = optimizer.param_groups[0]
    modules = list(model.modules())
    training.cut(half("digits"))
    assert list(model.modules()) == modules
    assert optimizer.param_groups[0] is group
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters()}
    list(training.epochs())
    assert widths == [2] * STEPS


def test_a_saved_training_is_cut_again_before_it_goes_on() -> None:
    """Through a file, into a training that begins anew; and equal to one that was not stopped."""
    schedule = SCHEDULE.model_copy(update={"epochs": 3})
    first = half("digits", 1)
    second = Mask({n: np.arange(w) < max(1, w - 1) for n, w in first.widths.items()})

    def start() -> tuple[nn.Module, Training]:
        model = built("digits")
        return model, begun("digits", model, schedule=schedule)

    unstopped, training = start()
    saved = io.BytesIO()
    for number, _ in enumerate(training.epochs()):
        if number == 0:
            training.cut(first)
            torch.save(training.state(), saved)
            training.cut(second)
    assert training.mask == first.then(second)
    saved.seek(0)
    resumed, training = start()
    training.restore(torch.load(saved, weights_only=True))
    assert training.mask == first
    training.cut(second)
    list(training.epochs())
    assert largest_difference(resumed, unstopped) == 0.0


def test_terms_of_parts_are_added_to_the_objective() -> None:
    class Twice(Part):
        def term(self) -> Tensor:
            return functional.cross_entropy(latest[0], latest[1])

    latest: list[Tensor] = []
    model = built("concat")

    def loss(pixels: Tensor, labels: Tensor) -> Tensor:
        latest[:] = model(pixels), labels
        return functional.cross_entropy(*latest)

    def mean(parts: list[Part], factor: float) -> float:
        model.load_state_dict(built("concat").state_dict())
        rng = torch.Generator().manual_seed(0)
        whole = TrainConfig(epochs=1, batch_size=STEPS * SCHEDULE.batch_size)

        def scaled(pixels: Tensor, labels: Tensor) -> Tensor:
            return factor * loss(pixels, labels)

        training = Training(model, images("concat"), whole, scaled, rng, parts=parts)
        return next(iter(training.epochs()))

    assert mean([Twice()], 1.0) == pytest.approx(mean([], 2.0))
    assert math.isfinite(mean([], 1.0))


def test_what_cannot_be_cut_says_so() -> None:
    model = built("digits")
    training = Training(
        model, images("digits"), SCHEDULE, lambda x, _: model(x).sum(), torch.Generator()
    )
    for leave_out in (training.cut, training.silence):
        with pytest.raises(ValueError, match="without channel groups"):
            leave_out(half("digits"))
    training = begun("digits", built("digits"))
    training.cut(half("digits"))
    with pytest.raises(InputError, match="not of the network"):
        training.cut(half("digits"))
