"""What a mask is scored to be worth, and that scoring leaves the model alone."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evosearch import memory
from evosearch.criteria import reconstruction
from evosearch.data.config import DataConfig
from evosearch.data.images import Images
from evosearch.data.splits import SearchData, load_search_data
from evosearch.engine import evaluator as evaluator_module
from evosearch.engine.config import EvaluatorConfig
from evosearch.engine.evaluator import MaskEvaluator
from evosearch.engine.executor import Job, carried_out
from evosearch.errors import EvaluationError, MemoryExhausted
from evosearch.models.zoo import digits_resnet
from evosearch.refit.building import ElasticWeights
from evosearch.refit.norms import recalibrate
from evosearch.seeding import Stream, generator
from evosearch.space.mask import Mask
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from evosearch.tasks.scoring import image_scores, score
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.elastic import ElasticConfig, train_elastic


@pytest.fixture(scope="module")
def data() -> SearchData:
    return load_search_data(DataConfig(name="digits", calibration=200, search=350))


@pytest.fixture(scope="module")
def model(data: SearchData) -> nn.Module:
    torch.manual_seed(0)
    network = digits_resnet(width=8)
    train_base(network, data.train, None, TrainConfig(epochs=4), seed=0)
    return network


@pytest.fixture(scope="module")
def discovery(model: nn.Module) -> Discovery:
    return discover(model, (torch.randn(2, 1, 8, 8),), GroupRules(), seed=0)


def make(model: nn.Module, data: SearchData, discovery: Discovery, **config: Any) -> MaskEvaluator:
    return MaskEvaluator(
        model=model,
        discovery=discovery,
        calibration=data.calibration,
        search=data.search,
        config=EvaluatorConfig(**{"precision": "float32", **config}),
        seed=0,
    )


def half(discovery: Discovery, seed: int) -> Mask:
    rng = np.random.default_rng(seed)
    return Mask({g.name: rng.permutation(g.size) < g.size // 2 for g in discovery.space.groups})


def test_the_full_mask_is_the_base_network(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    evaluation = make(model, data, discovery).evaluate(discovery.space.full_mask())
    base = score(model, data.search)
    assert evaluation.score.loss == pytest.approx(base.loss, rel=1e-5)
    assert evaluation.score.accuracy == base.accuracy
    assert evaluation.score.images == len(data.search) == 350


def test_a_mask_is_worth_the_same_whenever_it_is_asked(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one, other = make(model, data, discovery), make(model, data, discovery)
    first, second = half(discovery, 1), half(discovery, 2)
    values = [
        one.evaluate(first).score.loss,
        one.evaluate(second).score.loss,
        one.evaluate(first).score.loss,
    ]
    assert values[0] == values[2] == other.evaluate(first).score.loss
    assert values[0] != values[1]
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_bfloat16_scores_nearly_as_float32_does(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    masks = [half(discovery, seed) for seed in range(6)]
    losses = {
        (build, precision): [
            make(model, data, discovery, build=build, precision=precision)
            .evaluate(mask)
            .score.loss
            for mask in masks
        ]
        for build in ("compensated", "recalibrated")
        for precision in ("float32", "bfloat16")
    }
    for build in ("compensated", "recalibrated"):
        exact, coarse = losses[build, "float32"], losses[build, "bfloat16"]
        assert coarse != exact
        assert coarse == pytest.approx(exact, rel=0.05)


def elastic(
    model: nn.Module, data: SearchData, discovery: Discovery, weights: nn.Module
) -> MaskEvaluator:
    """Returns an evaluator whose candidates other weights can change."""
    config = EvaluatorConfig(
        build="elastic", precision="float32", build_images=200, calibration_batch=100
    )
    return MaskEvaluator(
        model=model,
        discovery=discovery,
        calibration=data.calibration,
        search=data.search,
        config=config,
        seed=0,
        elastic=weights,
    )


def test_elastic_weights_change_a_candidate_where_that_has_the_lesser_loss(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    theirs = make(model, data, discovery, build_images=200, calibration_batch=100)
    mask, start = half(discovery, 1), theirs.builder.final
    config = ElasticConfig(epochs=12, plans=1, palette=0)
    weights = train_elastic(
        model, discovery.space.groups, [mask], data.train, config, 0, start=start
    )
    ours = elastic(model, data, discovery, weights)
    assert ours.builder.is_elastic(mask)
    assert ours.evaluate(mask).score.loss < 0.9 * theirs.evaluate(mask).score.loss
    images = data.search.images[:32]
    with torch.no_grad():
        kept = ours.builder.final(mask)(images)
        candidate = ours._candidate(mask)(images)  # folded, in another layout
        unfolded = ours.builder.candidate(mask)(images)
    torch.testing.assert_close(candidate, unfolded, rtol=1e-4, atol=1e-5)
    # What is kept had its least squares solved apart, in its own layout.
    torch.testing.assert_close(candidate, kept, rtol=1e-3, atol=1e-4)


def test_no_elastic_weights_can_make_a_candidate_worse(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    """Neither those that learned nothing nor those that overflow; the base network is itself."""
    torch.manual_seed(1)
    theirs = make(model, data, discovery, build_images=200, calibration_batch=100)
    masks = (half(discovery, 1), discovery.space.full_mask())
    for factor in (1.0, math.inf):
        weights = digits_resnet(width=8).eval()
        with torch.no_grad():
            weights.linear.weight *= factor
        ours = elastic(model, data, discovery, weights)
        for mask in masks:
            assert not ours.builder.is_elastic(mask)
            assert ours.evaluate(mask).score.loss == theirs.evaluate(mask).score.loss
            finals = (its.builder.final(mask) for its in (ours, theirs))
            images = data.search.images[:32]
            with torch.no_grad():
                assert torch.equal(*(network(images) for network in finals))


def test_an_elastic_candidate_is_the_better_one_on_the_images_that_score_it(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    """Not on those that compensation was fitted to, on which some would be the other one."""
    masks = [half(discovery, seed) for seed in range(6)]
    compensated = make(model, data, discovery, build_images=200, calibration_batch=100)
    config = ElasticConfig(epochs=4, plans=2, palette=3, lr=0.2)
    groups, start = discovery.space.groups, compensated.builder.final
    weights = train_elastic(model, groups, masks[:2], data.train, config, 0, start=start)
    ours, changed = (elastic(model, data, discovery, weights) for _ in range(2))
    changed.builder._elastic = ElasticWeights(weights=weights, loss=lambda _: 0.0)
    for mask in masks:
        both = [its.evaluate(mask).score.loss for its in (changed, compensated)]
        assert ours.evaluate(mask).score.loss == min(both)
        assert ours.builder.is_elastic(mask) == (both[0] <= both[1])
    assert {ours.builder.is_elastic(mask) for mask in masks} == {True, False}


def test_a_recalibrated_candidate_is_the_plain_network(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    """Folding and the memory layout change nothing but the last digits."""
    images = {"build_images": 200, "calibration_batch": 100}
    evaluator = make(model, data, discovery, build="recalibrated", **images)
    for seed in range(3):
        mask = half(discovery, seed)
        plain = evaluator.evaluate_plain(mask).score.loss
        assert evaluator.evaluate(mask).score.loss == pytest.approx(plain, rel=1e-4)


def test_rescaling_lengthens_the_rows_of_the_classifier_alone(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    """Behind a BatchNorm it makes no difference; the refit shrank the classifier's outputs."""
    mask = half(discovery, 1)
    shrunk, restored = (
        make(model, data, discovery, rescale=rescale).builder.final(mask)
        for rescale in (False, True)
    )
    factors = restored.linear.weight.detach() / shrunk.linear.weight.detach()
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), rtol=0.02, atol=0)
    assert (factors > 1).all()


def test_a_network_is_built_once_for_all_rungs(
    model: nn.Module, data: SearchData, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round of the genetic search has 12 candidates on its first rung; then some climb on."""
    evaluator = make(model, data, discovery)
    built: list[Mask] = []
    real = evaluator.builder.candidate
    monkeypatch.setattr(evaluator.builder, "candidate", lambda m: built.append(m) or real(m))
    masks = [half(discovery, seed) for seed in range(12)]
    for stop, climbing in ((50, masks), (350, masks[::2])):
        for mask in climbing:
            evaluator.image_scores(mask, 0, stop)
    assert built == masks


def test_large_networks_are_not_all_kept(
    model: nn.Module, data: SearchData, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator_module, "WEIGHTS_KEPT", 1)
    evaluator = make(model, data, discovery)
    for seed in range(3):
        evaluator.image_scores(half(discovery, seed), 0, 50)
    assert list(evaluator._built) == [half(discovery, 2)]


def test_large_maps_make_small_calibration_batches(
    model: nn.Module, data: SearchData, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(
        layer.outputs * model.get_parameter(layer.weight).shape[layer.writes]
        for layer in discovery.layers
    )
    monkeypatch.setattr(evaluator_module, "LARGEST_BATCH_MAP", 7 * largest + 1)
    evaluator = make(model, data, discovery, calibration_batch=100)
    assert max(len(batch) for batch in evaluator._batches) == 7


def test_what_layers_read_is_measured_once(
    model: nn.Module, data: SearchData, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Gram matrices and the criteria that need the same statistics share one pass."""
    passes = []
    real = evaluator_module.collect_statistics
    monkeypatch.setattr(
        evaluator_module, "collect_statistics", lambda *args: passes.append(args) or real(*args)
    )
    monkeypatch.delattr(reconstruction, "collect_statistics")
    make(model, data, discovery).knowledge(["two_step", "cap"])
    assert len(passes) == 1


def test_large_statistics_go_once_knowledge_is_made_of_them(
    model: nn.Module, data: SearchData, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, freed = (make(model, data, discovery) for _ in range(2))
    mask = half(discovery, 1)
    kept.knowledge(["l1"])
    monkeypatch.setattr(evaluator_module, "STATISTICS_KEPT", 1)
    freed.knowledge(["l1"])
    assert "_consumers" in vars(kept)
    assert "_consumers" not in vars(freed)
    assert freed.compensated_error(mask) == kept.compensated_error(mask)


def test_compensation_helps_random_masks(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    evaluator = make(model, data, discovery)
    masks = [half(discovery, seed) for seed in range(5)]
    gains = [
        evaluator.evaluate_plain(m).score.loss - evaluator.evaluate(m).score.loss for m in masks
    ]
    assert min(gains) > 0


def test_a_network_that_overflows_is_an_evaluation_error(
    data: SearchData, discovery: Discovery
) -> None:
    torch.manual_seed(0)
    broken = digits_resnet(width=8)
    with torch.no_grad():
        broken.linear.weight.fill_(float("nan"))
    with pytest.raises(EvaluationError, match="not finite"):
        make(broken, data, discovery).evaluate_plain(half(discovery, 0))


def test_recalibration_takes_the_statistics_of_the_batch_and_touches_nothing_else() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5))
    model.eval()
    images = torch.randn(50, 1, 4, 4)
    weights = model[0].weight.clone()
    recalibrate(model, [images])
    read = model[0](images).detach().movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(model[1].running_mean, read.mean(0))
    torch.testing.assert_close(model[1].running_var, read.var(0))
    assert torch.equal(model[0].weight, weights)
    assert model[1].momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_recalibration_averages_over_batches() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1))
    first, second = torch.full((4, 1, 2, 2), 1.0), torch.full((4, 1, 2, 2), 4.0)
    recalibrate(model, [first, second])
    assert float(model[0].running_mean) == 2.5
    assert model.training


def test_statistics_do_not_depend_on_the_order_of_the_source(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    """Image folders list class by class; such batches would have other statistics."""
    by_class = data.calibration.take(torch.argsort(data.calibration.labels, stable=True))
    mask = half(discovery, 0)
    losses = []
    for calibration in (data.calibration, by_class):
        evaluator = MaskEvaluator(
            model=model,
            discovery=discovery,
            calibration=calibration,
            search=data.search,
            config=EvaluatorConfig(calibration_batch=40, build_images=100),
            seed=0,
        )
        losses.append(evaluator.evaluate(mask).score.loss)
        losses.append(evaluator.evaluate_plain(mask).score.loss)
    assert losses[2] == pytest.approx(losses[0], rel=0.15)
    assert losses[3] == pytest.approx(losses[1], rel=0.15)


def test_images_score_the_same_whatever_range_they_are_asked_in(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    mask = half(discovery, 3)
    whole = make(model, data, discovery).image_scores(mask, 0, 350)
    for cuts in ([0, 128, 350], [0, 7, 130, 131, 350]):
        parts = make(model, data, discovery)
        found = [parts.image_scores(mask, a, b) for a, b in pairwise(cuts)]
        np.testing.assert_array_equal(np.concatenate([f.losses for f in found]), whole.losses)
        np.testing.assert_array_equal(np.concatenate([f.metrics for f in found]), whole.metrics)


def test_compensated_errors_order_masks_of_one_group_as_the_loss_does(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    evaluator = make(model, data, discovery)
    full = discovery.space.full_mask()
    assert evaluator.compensated_error(full) == 0
    name = max(discovery.space.sizes, key=lambda group: discovery.space.sizes[group])
    size = discovery.space.sizes[name]
    errors = [
        evaluator.compensated_error(Mask({**full, name: np.arange(size) < width}))
        for width in (1, size // 2, size - 1)
    ]
    assert errors[0] > errors[1] > errors[2] > 0


def test_recovery_trains_candidates_but_not_the_base(
    model: nn.Module, data: SearchData, discovery: Discovery
) -> None:
    def recover(network: nn.Module) -> None:
        with torch.no_grad():
            next(network.parameters()).mul_(0.5)

    parts = {
        "model": model,
        "discovery": discovery,
        "calibration": data.calibration,
        "search": data.search,
        "config": EvaluatorConfig(),
        "seed": 0,
    }
    plain, recovered = MaskEvaluator(**parts), MaskEvaluator(**parts, recover=recover)
    full, mask = discovery.space.full_mask(), half(discovery, 4)
    assert plain.evaluate(full).score.loss == recovered.evaluate(full).score.loss
    assert plain.evaluate(mask).score.loss != recovered.evaluate(mask).score.loss


def without_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Has convolutions of more images than that fail as on a full device; lists who failed."""
    failed: list[int] = []
    real = nn.Conv2d.forward

    def forward(self: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        if len(images) > most:
            failed.append(len(images))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB")
        return real(self, images)

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    monkeypatch.setattr(memory, "_fitting", {})
    return failed


def test_images_that_do_not_fit_are_scored_in_smaller_batches(
    model: nn.Module, data: SearchData, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores are those of a run that had the smaller batches, bit for bit."""
    masks = [half(discovery, seed) for seed in range(2)]
    small, large = (make(model, data, discovery, batch_size=size) for size in (16, 64))
    expected = [small.image_scores(mask, 0, 100) for mask in masks]
    for mask in masks:
        large.image_scores(mask, 0, 50)  # builds its network
    failed = without_memory(monkeypatch, 20)
    for mask, scores in zip(masks, expected, strict=True):
        measured = carried_out(large, Job(mask=mask, images=range(50, 100)))
        assert measured.failure is None
        assert measured.scores is not None
        np.testing.assert_array_equal(measured.scores.losses, scores.losses[50:])
    assert failed == [64, 32]  # of the first mask: the second one begins with what fits


def test_calibration_takes_smaller_batches_where_larger_ones_do_not_fit(
    model: nn.Module, data: SearchData, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = half(discovery, 1)
    whole = make(model, data, discovery, build="recalibrated").evaluate(mask).score
    failed = without_memory(monkeypatch, 64)
    evaluator = make(model, data, discovery, build="recalibrated", batch_size=50)
    assert evaluator.evaluate(mask).score.loss == pytest.approx(whole.loss, rel=0.05)
    assert evaluator.knowledge(["l1", "taylor"]).scores.keys() == {"l1", "taylor"}
    evaluator.builder.final(mask)
    assert failed
    del failed[:]
    evaluator.evaluate(half(discovery, 2))  # begins with what fits
    evaluator.builder.final(mask)
    evaluator.builder.plain(mask)
    assert not failed


def test_candidates_are_not_compensated_on_fewer_images_than_those_before(
    model: nn.Module, data: SearchData, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = make(model, data, discovery, build_images=80)
    few = make(model, data, discovery, build_images=60, batch_size=64)
    expected = few.evaluate(half(discovery, 1)).score
    few._built.clear()
    without_memory(monkeypatch, 64)
    with pytest.raises(MemoryExhausted, match=r"on 80 images at once, lower .* build_images"):
        carried_out(evaluator, Job(mask=half(discovery, 1), images=range(50)))
    assert few.evaluate(half(discovery, 1)).score == expected


def test_a_device_without_any_memory_is_no_fault_of_a_candidate(
    model: nn.Module, data: SearchData, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = make(model, data, discovery)
    without_memory(monkeypatch, 0)
    for job in (Job(mask=half(discovery, 1), images=range(50)), Job(mask=half(discovery, 1))):
        with pytest.raises(MemoryExhausted, match=r"images at once|a batch of 2 does not fit"):
            carried_out(evaluator, job)


def test_training_without_memory_names_what_takes_less(
    data: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_memory(monkeypatch, 16)
    with pytest.raises(MemoryExhausted, match="training, raise accumulate or lower batch_size"):
        train_base(
            digits_resnet(width=8), data.train, None, TrainConfig(epochs=1, batch_size=96), seed=0
        )


def test_search_images_are_normalised_once_for_all_candidates(
    model: nn.Module, data: SearchData, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are those of the split as it is read, bit for bit."""
    evaluator = make(model, data, discovery, build="recalibrated")
    normalised = []
    real = Images.normalised
    monkeypatch.setattr(
        Images, "normalised", lambda self, raw: normalised.append(len(raw)) or real(self, raw)
    )
    masks = [half(discovery, seed) for seed in range(3)]
    found = [evaluator.image_scores(mask, 0, 350) for mask in masks]
    assert sum(normalised) == 350
    order = generator(0, Stream.EVALUATION, "order").permutation(350)
    for mask, scores in zip(masks, found, strict=True):
        read = image_scores(
            evaluator._candidate(mask),
            data.search.take(order),
            batch_size=64,
            numerics=evaluator.builder.numerics,
        )
        np.testing.assert_array_equal(scores.losses, read.losses)
