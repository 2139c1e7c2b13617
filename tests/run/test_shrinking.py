"""A network that shrinks in training is within the budget in force, and within its own at last."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evosearch.criteria import criterion_class
from evosearch.criteria.learned import learned_gates
from evosearch.data.splits import CalibrationSplit, TrainSplit
from evosearch.errors import EvaluationError, InputError
from evosearch.run.choosing import PLANS, Scorer, plan_of
from evosearch.run.shrinking import Shrinking
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.strategies.fixed_plans import uniform_widths
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.training.base_training import TrainConfig
from evosearch.training.gated import Gated
from evosearch.training.pacing import PACES, parse_pace
from evosearch.training.parts import Moment, Part
from evosearch.training.penalized import Penalized
from evosearch.training.recipes import RECIPES, PruneConfig, resolved_settings
from evosearch.training.trainer import Training
from tests.data.helpers import split_of
from tests.surgery.trainable import built, found

NAME = "digits"
SCHEDULE = TrainConfig(epochs=8, batch_size=6, lr=0.05)
STEPS = 4
IMAGES = STEPS * SCHEDULE.batch_size
SPACE = found(NAME).space
QUARTER = BudgetRequest.of(flops="25%").resolve(SPACE.base_cost)


def pixels(count: int, seed: int) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


class Watched:
    """A training under a budget, with all that it went through."""

    def __init__(
        self,
        recipe: str,
        budget: Budget = QUARTER,
        every: int | str = 1,
        drop: float | None = None,
        **settings: Any,
    ) -> None:
        given = PruneConfig(recipe=recipe, every=every, images=12, **settings)
        self.config = resolved_settings(given)
        self.left: list[tuple[Mask, int, float]] = []
        self.cuts: list[tuple[Cost, Budget]] = []
        calibration = split_of(CalibrationSplit, pixels(12, 3), [n % 3 for n in range(12)])
        self.model = built(NAME)
        self.shrinking = Shrinking(
            config=self.config,
            pace=parse_pace(self.config.pace, SCHEDULE.epochs, drop=drop),
            budget=budget,
            scorer=Scorer(
                config=self.config,
                batches=list(calibration.batches(12)),
                task=CLASSIFICATION,
                seed=0,
            ),
            on_leave=lambda _, mask, number, t: self.left.append((mask, number, t)),
            on_change=lambda cost, in_force: self.cuts.append((cost, in_force)),
        )
        kind = learned_gates(criterion_class(self.config.criterion))
        rng = torch.Generator().manual_seed(1)
        gates = [] if kind is None else [Gated(kind, budget, rng)]
        parts: list[Part] = [self.shrinking, *gates]
        if self.config.penalties:
            weights = self.config.penalties
            parts.append(Penalized(weights, lambda: self.shrinking.tolerance))
        self.training = Training(
            self.model,
            split_of(TrainSplit, pixels(IMAGES, 4), [n % 3 for n in range(IMAGES)]),
            SCHEDULE,
            lambda x, y: functional.cross_entropy(self.model(x), y),
            torch.Generator().manual_seed(0),
            discovery=found(NAME),
            parts=parts,
        )

    def run(self) -> "Watched":
        list(self.training.epochs())
        return self

    @property
    def mask(self) -> Mask:
        assert self.training.mask is not None
        return self.training.mask


BUDGETED = [
    name
    for name, recipe in RECIPES.items()
    if not recipe.settings.get("drop") and recipe.settings.get("pace") != "slack"
]


@pytest.mark.parametrize("recipe", BUDGETED)
def test_every_recipe_ends_within_the_budget(recipe: str) -> None:
    watched = Watched(recipe).run()
    assert watched.shrinking.is_done
    assert QUARTER.violation(SPACE.cost(watched.mask)) == 0
    assert watched.mask.widths == {
        group.name: group.size for group in watched.training.discovery.space.groups
    }
    masks = [SPACE.full_mask(), *(mask for mask, _, _ in watched.left), watched.mask]
    for earlier, later in pairwise(masks):
        if watched.config.regrow:
            assert all(later.widths[name] <= width for name, width in earlier.widths.items())
        else:
            assert all((later[name] <= bits).all() for name, bits in earlier.items())
    assert [number for _, number, _ in watched.left] == list(range(len(watched.left)))
    assert all(in_force.violation(cost) == 0 for cost, in_force in watched.cuts)
    assert watched.cuts[-1][0] == SPACE.cost(watched.mask)


def test_a_network_that_diverged_is_not_judged() -> None:
    """From the second step on; a cut would be due in every step of the epoch."""
    watched = Watched("while_training", every=1)
    real, steps = watched.training._gradient, []

    def diverging(images: Tensor, labels: Tensor) -> Tensor:
        steps.append(len(images))
        return real(images, labels) * (1.0 if len(steps) == 1 else float("nan"))

    watched.training._gradient = diverging
    with pytest.raises(EvaluationError, match="diverged in epoch 1 of 8"):
        watched.run()
    assert (len(steps), len(watched.left)) == (2, 1)


@pytest.mark.parametrize("pace", sorted(set(PACES) - {"slack"}))
def test_no_cut_comes_late_and_none_is_left_out(pace: str) -> None:
    """Also where steps between cuts are more than the training has after the pace."""
    moments = []
    watched = Watched("gradual", every=10_000, pace=pace)

    class Clock(Part):
        def before_step(self, moment: Moment) -> None:
            moments.append((moment.t, watched.shrinking.is_done))

    watched.training._parts = (*watched.training._parts, Clock())
    watched.run()
    done = [t for t, is_done in moments if is_done]
    assert min(done) <= 0.75
    ends = parse_pace(pace, SCHEDULE.epochs).ends
    assert min(done) == pytest.approx(min(t for t, _ in moments if t >= ends))


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("recipe", ["one_cycle", "gradual", "granet", "consensus"])
def test_a_few_steps_end_within_the_budget_too(
    recipe: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = SCHEDULE.model_copy(update={"epochs": steps, "batch_size": IMAGES})
    monkeypatch.setitem(globals(), "SCHEDULE", few)
    watched = Watched(recipe, pace="linear").run()
    assert watched.shrinking.is_done
    assert QUARTER.violation(SPACE.cost(watched.mask)) == 0


def test_the_budget_in_force_is_as_much_of_the_way_as_is_gone() -> None:
    """Linear from 0 to 0.75: at t = 0.375 half of the way from all to a quarter is gone."""
    watched = Watched("while_training")
    at_half = Moment(step=3, epoch_steps=1, epochs=8)
    (bound,) = watched.shrinking._in_force(at_half).bounds.values()
    base, quarter = SPACE.base_cost.macs, QUARTER.bounds["macs"].high
    assert bound.high == round(base - 0.5 * (base - quarter))


def test_rounds_of_one_cut_are_equal_factors_apart() -> None:
    """From 8 to 1 in three rounds: 4, 2, 1."""
    watched = Watched("drive", rounds=3)
    base = SPACE.base_cost.macs
    target = Budget.exactly(macs=base // 8)
    first = watched.shrinking._between(target, 2).bounds["macs"].high
    assert first == pytest.approx(base / 2, rel=1e-3)
    assert watched.shrinking._between(target, 0) == target


def test_uniform_widths_are_those_of_one_cut_of_the_whole_network() -> None:
    """However many cuts led there: shares of what is left would take small groups first."""
    expected = dict(zip(SPACE.sizes, uniform_widths(SPACE, QUARTER).tolist(), strict=True))
    for recipe in ("scratch", "one_cycle", "while_training"):
        assert Watched(recipe).run().mask.widths == expected


def test_steps_cost_their_images_times_the_macs_of_the_moment() -> None:
    started = Watched("scratch").run()
    small = SPACE.cost(started.mask).macs
    assert started.shrinking.image_macs == 3 * SCHEDULE.epochs * IMAGES * small
    late = Watched("at_a_glance").run()
    before = next(t for _, _, t in late.left) * SCHEDULE.epochs * STEPS
    images = [before * SCHEDULE.batch_size, IMAGES * SCHEDULE.epochs]
    macs = SPACE.base_cost.macs * images[0] + SPACE.cost(late.mask).macs * (images[1] - images[0])
    assert late.shrinking.image_macs == 3 * macs
    assert before == 0.75 * SCHEDULE.epochs * STEPS


def test_a_network_that_was_never_trained_is_none_that_training_left() -> None:
    assert Watched("snip").run().left == []
    masks = [mask for mask, _, _ in Watched("drive", rounds=4).run().left]
    assert masks == [SPACE.full_mask()]


def test_lowest_norms_go_first() -> None:
    """With L1 norms written by hand; the widths of the plan are the oracle for how many."""
    watched = Watched("one_cycle", pace="start", criterion="l1")
    kernel = watched.model.conv1.weight
    order = [2, 0, 3, 1]  # ascending norms
    (group,) = (group for group in SPACE.groups if group.name == "conv1")
    coupled = [member.tensor for member in group.members if member.dim == 0]
    with torch.no_grad():
        for tensor in coupled:
            if tensor.endswith("weight") and watched.model.get_parameter(tensor).ndim == 4:
                watched.model.get_parameter(tensor).fill_(0)
        for norm, channel in enumerate(order):
            kernel[channel] = 1.0 + norm
    watched.run()
    width = watched.mask.widths["conv1"]
    assert 0 < width < 4
    assert sorted(np.flatnonzero(watched.mask["conv1"])) == sorted(order[-width:])


@pytest.mark.parametrize(
    ("recipe", "penalties"),
    [("epi", {}), ("granet", {}), ("while_training", {"polarization": 1e-3})],
)
def test_its_state_goes_through_a_checkpoint(recipe: str, penalties: dict[str, float]) -> None:
    """With a pace that reads its record, and with weights that do not decay."""

    def begun() -> Watched:
        return Watched(recipe, every="epoch", penalties=penalties)

    unstopped, stopped, resumed = begun().run(), begun(), begun()
    epochs = stopped.training.epochs()
    for _ in range(3):
        next(epochs)
    state: Mapping[str, Any] = stopped.training.state()
    resumed.training.restore(state)
    resumed.run()
    assert resumed.mask == unstopped.mask
    assert resumed.shrinking.state() == unstopped.shrinking.state()
    for own, other in zip(
        resumed.model.state_dict().values(), unstopped.model.state_dict().values(), strict=True
    ):
        assert torch.equal(own, other)


def test_penalties_pull_while_it_trains() -> None:
    """Group lasso with a large weight: all that is left is smaller than without it."""

    def size(weights: dict[str, float]) -> float:
        model = Watched("scratch", penalties=weights).run().model
        return sum(parameter.detach().abs().sum().item() for parameter in model.parameters())

    assert size({"group_lasso": 0.1}) < 0.9 * size({})


def test_polarized_scales_do_not_decay_and_stay_in_range() -> None:
    watched = Watched("while_training", penalties={"polarization": 1e-3})
    watched.run()
    (optimizer,) = watched.training._optimizers
    decaying, spared = optimizer.param_groups
    assert (decaying["weight_decay"], spared["weight_decay"]) == (SCHEDULE.weight_decay, 0.0)
    norms = [m for m in watched.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {id(p) for p in spared["params"]} == {id(norm.weight) for norm in norms}
    assert all(0 <= norm.weight.min() <= norm.weight.max() <= 1 for norm in norms)


def test_several_budgets_hold_together() -> None:
    both = BudgetRequest.of(flops="60%", params="20%").resolve(SPACE.base_cost)
    for recipe in ("gradual", "one_cycle"):
        cost = SPACE.cost(Watched(recipe, both).run().mask)
        assert cost.macs <= 0.6 * SPACE.base_cost.macs
        assert cost.params <= 0.2 * SPACE.base_cost.params


def test_an_unknown_plan_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'global'"):
        plan_of("globl")
    assert set(PLANS) == {"uniform", "global", "triangular", "relative"}
