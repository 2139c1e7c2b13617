import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from evosearch.data import splits as data
from evosearch.errors import EvaluationError
from evosearch.models.build import ModelConfig, build_model
from evosearch.models.weights import weights_digest
from evosearch.tasks.scoring import score
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.trainer import Training
from tests.data.helpers import split_of

MODEL = ModelConfig(
    build="evosearch.models.zoo:digits_resnet", input=(1, 8, 8), kwargs={"width": 4}
)
QUICK = TrainConfig(epochs=2, batch_size=32)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(few, seed, config=QUICK, wrap=lambda model: model):
    model = wrap(build_model(MODEL, seed=0))
    train_base(model, few[0], None, config, seed)
    return weights_digest(model)


def test_same_seed_same_weights_bit_for_bit(few):
    torch.manual_seed(1)
    first = trained(few, 3)
    torch.manual_seed(2)
    assert trained(few, 3) == first
    assert trained(few, 4) != first


def test_dropout_follows_the_seed_too(few):
    def dropping(model):
        return nn.Sequential(nn.Dropout(0.2), model)

    torch.manual_seed(1)
    first = trained(few, 3, wrap=dropping)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert trained(few, 3, wrap=dropping) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_training_learns_and_reports(few):
    train, search = few
    model = build_model(MODEL, seed=0)
    untrained = score(model, search)
    records = []
    history = train_base(
        model, train, search, TrainConfig(epochs=8, batch_size=32), 0, records.append
    )
    assert list(history) == records
    assert [r.epoch for r in history] == list(range(1, 9))
    assert history[-1].train_loss < 0.7 * history[0].train_loss
    assert history[-1].search == score(model, search)
    assert history[-1].search.loss < 0.7 * untrained.loss
    assert not model.training


def test_watching_the_search_split_does_not_change_the_weights(few):
    model = build_model(MODEL, seed=0)
    train_base(model, *few, QUICK, 3)
    assert weights_digest(model) == trained(few, 3)


def test_label_smoothing_changes_the_objective(few):
    assert trained(few, 3) != trained(few, 3, QUICK.model_copy(update={"label_smoothing": 0.1}))


def test_every_epoch_sees_every_image_once_in_batches_of_nearly_one_size(few):
    train = few[0].take(torch.arange(65))
    plain = data.TrainSplit(images=train.images, labels=train.labels, indices=train.indices)
    seen = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def loss(images, labels):
        seen.append(images)
        return functional.cross_entropy(model(images), labels)

    config = TrainConfig(epochs=2, batch_size=32)
    for _ in Training(model, plain, config, loss, rng()).epochs():
        assert [len(batch) for batch in seen] == [22, 22, 21]
        images = torch.cat(seen)
        order = torch.cdist(images.flatten(1), plain.images[:].flatten(1)).argmin(1)
        assert sorted(order.tolist()) == list(range(65))
        seen.clear()


def test_an_epoch_is_that_of_a_loop_written_by_hand(few):
    """Weights and mean losses, bit for bit."""
    model = build_model(MODEL, seed=0).train()
    oracle, drawn, expected = copy.deepcopy(model), rng(), []
    optimizer = torch.optim.SGD(
        oracle.parameters(), lr=QUICK.lr, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2 * 6)
    for _ in range(2):
        total = 0.0
        for positions in torch.randperm(192, generator=drawn).tensor_split(6):
            images, labels = few[0].batch(positions, drawn)
            loss = functional.cross_entropy(oracle(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cosine.step()
            total += loss.item() * len(positions)
        expected.append(total / 192)

    def objective(images, labels):
        return functional.cross_entropy(model(images), labels)

    assert list(Training(model, few[0], QUICK, objective, rng()).epochs()) == expected
    assert weights_digest(model) == weights_digest(oracle)


def test_the_learning_rate_follows_a_cosine_to_zero():
    """Plain steps on a constant gradient, with the momentum summed by hand."""
    split = split_of(data.TrainSplit, torch.ones(4, 1, 1, 1), [0, 0, 0, 0])
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    config = TrainConfig(epochs=2, batch_size=2, lr=0.1, weight_decay=0.0)
    for _ in Training(
        model, split, config, lambda x, _: model(x.flatten(1)).mean(), rng()
    ).epochs():
        pass
    velocity, expected = 0.0, 0.0
    for factor in (1.0, 0.8535533905932737, 0.5, 0.14644660940672627):
        velocity = 0.9 * velocity + 1
        expected -= 0.1 * factor * (1 + 0.9 * velocity)
    assert model.weight.item() == pytest.approx(expected, rel=1e-5)


def test_norms_are_measured_on_the_weights_that_an_epoch_ends_with(few):
    """One batch of all images: the statistics are those of the layer's inputs, exactly."""
    train = few[0].take(torch.arange(60))
    plain = data.TrainSplit(images=train.images, labels=train.labels, indices=train.indices)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 10))

    def loss(images, labels):
        return functional.cross_entropy(model(images), labels)

    training = Training(model, plain, TrainConfig(epochs=1, batch_size=60), loss, rng())
    for _ in training.epochs():
        drifting = model[1].running_mean.clone()
        training.measure_norms()
    with torch.no_grad():
        inputs = model[0](plain.images[:])
    torch.testing.assert_close(model[1].running_mean, inputs.mean((0, 2, 3)))
    torch.testing.assert_close(model[1].running_var, inputs.var((0, 2, 3)))
    assert not torch.allclose(drifting, model[1].running_mean, rtol=1e-2)
    assert model.training
    assert model[1].momentum == 0.1


def test_divergence_is_an_error_that_says_what_to_do(few):
    model = build_model(MODEL, seed=0)
    with pytest.raises(EvaluationError, match=r"diverged in epoch \d+ of 3 .*lower lr = 1e\+30"):
        train_base(model, few[0], None, TrainConfig(epochs=3, lr=1e30), 0)


def test_training_on_another_split_is_refused(few):
    with pytest.raises(TypeError, match="expected a TrainSplit, got a SearchSplit"):
        train_base(build_model(MODEL), few[1], None, QUICK, 0)
