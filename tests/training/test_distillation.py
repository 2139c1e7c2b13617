import copy
import math

import pytest
import torch
from torch import nn

from evosearch.errors import InputError
from evosearch.models.precision import fastest_numerics
from evosearch.models.weights import weights_digest
from evosearch.models.zoo import digits_resnet
from evosearch.tasks.scoring import score
from evosearch.training import bestepoch
from evosearch.training.attention import attention_loss, attention_map
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.distillation import (
    FinetuneConfig,
    distil,
    distil_blindly,
)
from evosearch.training.objective import distillation_loss

QUICK = FinetuneConfig(epochs=2, batch_size=32, attention=1.0)


@pytest.fixture(scope="module")
def teacher(few):
    torch.manual_seed(0)
    model = digits_resnet(width=6)
    train_base(model, few[0], None, TrainConfig(epochs=10, batch_size=32), 0)
    return model


@pytest.fixture
def student():
    torch.manual_seed(1)
    return digits_resnet(width=4).eval()


# Losses


def test_distillation_loss_by_hand():
    student = torch.tensor([[2 * math.log(3), 0.0]])
    teacher = torch.zeros(1, 2)
    labels = torch.tensor([1])
    # At T = 2 the student gives 3/4 and 1/4, the teacher 1/2 each; at T = 1, 9/10 and 1/10.
    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    loss = distillation_loss(student, teacher, labels, temperature=2.0, alpha=0.25)
    assert loss.item() == pytest.approx(0.75 * math.log(10) + 0.25 * 4 * divergence, rel=1e-6)


def test_distillation_loss_is_a_mean_over_images():
    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    labels = torch.tensor([0, 1, 2])
    options = {"temperature": 3.0, "alpha": 0.5}
    single = [
        distillation_loss(student[i : i + 1], teacher[i : i + 1], labels[i : i + 1], **options)
        for i in range(3)
    ]
    whole = distillation_loss(student, teacher, labels, **options)
    assert whole.item() == pytest.approx(torch.stack(single).mean().item(), rel=1e-5)


def test_equal_logits_leave_only_the_labels():
    logits = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss = distillation_loss(logits, logits, torch.tensor([0, 0]), temperature=4.0, alpha=1.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-7)


def test_attention_map_by_hand():
    # Two channels, two pixels: squares sum to 3^2 + 0 = 9 and 0 + ... = 12.
    features = torch.tensor([[[[3.0, -2.0]], [[0.0, math.sqrt(8)]]]])
    assert attention_map(features)[0].tolist() == pytest.approx([9 / 15, 12 / 15])


def test_attention_maps_compare_layers_of_other_widths():
    wide = torch.randn(5, 8, 3, 3)
    narrow = torch.cat([wide, torch.zeros(5, 4, 3, 3)], 1)
    assert attention_map(wide).shape == (5, 9)
    assert torch.allclose(attention_map(wide), attention_map(narrow))


def test_attention_loss_by_hand():
    one, two = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    # One layer: images at squared distance 2 and 0. The other: equal.
    assert attention_loss([one], [two]).item() == pytest.approx(0.5)
    assert attention_loss([one, two], [two, two]).item() == pytest.approx(0.5)


# Fine-tuning


def test_distillation_helps_the_student_and_spares_the_teacher(teacher, student, few):
    train, search = few
    teacher = copy.deepcopy(teacher)
    teacher.train()
    digest, before = weights_digest(teacher), score(student, search)
    flags = [p.requires_grad for p in teacher.parameters()]
    outcome = distil(
        teacher, student, train, search, QUICK.model_copy(update={"epochs": 12, "lr": 0.1}), 0
    )
    assert score(student, search).loss < 0.7 * before.loss
    assert weights_digest(teacher) == digest
    assert teacher.training
    assert [p.requires_grad for p in teacher.parameters()] == flags
    for model in (teacher, student):
        assert not any(m._forward_hooks for m in model.modules())
    assert outcome.attention_layers == ("layer1", "layer2", "layer3")
    assert not student.training


def test_the_history_begins_before_the_first_step(teacher, student, few):
    before = score(student, few[1])
    records = []
    outcome = distil(teacher, student, *few, QUICK, 0, records.append)
    assert list(outcome.history) == records
    assert [r.epoch for r in records] == [0, 1, 2]
    assert records[0].search == before
    assert records[0].train_loss is None


def test_the_student_ends_with_the_weights_of_its_best_epoch(teacher, student, few, monkeypatch):
    """The search split is made to like the middle epoch best."""
    digests, real = [], bestepoch.score

    def scored(model, split, task):
        digests.append(weights_digest(model))
        outcome = real(model, split, task=task)
        loss = [0.5, 0.3, 0.4, 0.3][len(digests) - 1]
        return outcome.__class__(**{**vars(outcome), "loss": loss})

    monkeypatch.setattr(bestepoch, "score", scored)
    outcome = distil(teacher, student, *few, QUICK.model_copy(update={"epochs": 3}), 0)
    assert outcome.best_epoch == 1
    assert outcome.best.search.loss == 0.3
    assert weights_digest(student) == digests[1]
    assert len(set(digests)) == 4


def test_the_optimizer_is_the_one_that_was_asked_for(teacher, student, few):
    digests = {}
    for optimizer in ("muon", "sgd"):
        tuned = copy.deepcopy(student)
        config = FinetuneConfig(epochs=1, batch_size=32, optimizer=optimizer)
        distil(teacher, tuned, *few, config, 0)
        digests[optimizer] = weights_digest(tuned)
    assert digests["muon"] != digests["sgd"]


def test_norms_have_the_statistics_of_one_pass_after_the_epoch(teacher, student, few):
    """They would count the steps of training otherwise, and those before it."""
    train, search = few[0].take(torch.arange(100)), few[1]
    config = FinetuneConfig(epochs=2, batch_size=32)
    assert distil(teacher, student, train, search, config, 0).best_epoch > 0
    norms = [m for m in student.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {4}


def test_a_student_that_only_gets_worse_stays_as_it_came(teacher, few):
    student = copy.deepcopy(teacher)
    before = weights_digest(student)
    ruinous = FinetuneConfig(epochs=1, batch_size=32, lr=5.0, attention=0.0)
    outcome = distil(teacher, student, *few, ruinous, 0)
    assert outcome.best_epoch == 0
    assert weights_digest(student) == before


def test_same_seed_same_weights_bit_for_bit(teacher, student, few):
    digests = []
    for noise, seed in ((1, 3), (2, 3), (3, 4)):
        torch.manual_seed(noise)
        tuned = copy.deepcopy(student)
        distil(teacher, tuned, *few, QUICK, seed)
        digests.append(weights_digest(tuned))
    assert digests[0] == digests[1] != digests[2]


def test_attention_transfer_pulls_the_maps_together(teacher, student, few):
    train, search = few

    def distance(model):
        with torch.no_grad():
            maps = [
                attention_map(net.layer1(torch.relu(net.bn1(net.conv1(search.images[:])))))
                for net in (model.eval(), teacher.eval())
            ]
        return attention_loss(maps[:1], maps[1:]).item()

    results = {}
    for weight in (0.0, 100.0):
        tuned = copy.deepcopy(student)
        config = FinetuneConfig(
            epochs=4,
            batch_size=32,
            attention=weight,
            attention_layers=("layer1",),
        )
        distil(teacher, tuned, train, search, config, 0)
        results[weight] = distance(tuned)
    assert results[100.0] < 0.7 * results[0.0]


def test_attention_layers_by_pattern(teacher, student, few):
    config = QUICK.model_copy(update={"epochs": 1, "attention_layers": ("layer?.0.bn2",)})
    outcome = distil(teacher, student, *few, config, 0)
    assert outcome.attention_layers == ("layer1.0.bn2", "layer2.0.bn2", "layer3.0.bn2")


@pytest.mark.parametrize("pattern", ["layer9", "linear"])
def test_a_pattern_without_feature_maps(teacher, student, few, pattern):
    config = QUICK.model_copy(update={"attention_layers": ("layer1", pattern)})
    with pytest.raises(InputError, match=f"{pattern}' matches no module"):
        distil(teacher, student, *few, config, 0)


def test_networks_without_feature_maps(few):
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(2)]
    with pytest.raises(InputError, match="share no feature maps"):
        distil(*nets, *few, QUICK, 0)
    outcome = distil(*nets, *few, QUICK.model_copy(update={"attention": 0.0}), 0)
    assert outcome.attention_layers == ()


def test_modules_that_work_in_place(few):
    """An in-place ReLU after a watched layer must not break the gradient of its map."""
    nets = [
        nn.Sequential(
            nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10),
        )
        for width in (6, 4)
    ]  # fmt: skip
    config = QUICK.model_copy(update={"attention_layers": ("1",)})
    assert distil(*nets, *few, config, 0).attention_layers == ("1",)


def test_the_search_split_chooses_and_nothing_else(teacher, student, few):
    train, _ = few
    with pytest.raises(TypeError, match="expected a SearchSplit, got a TrainSplit"):
        distil(teacher, student, train, train, QUICK, 0)


@pytest.mark.parametrize("attention", [0.0, 1.0])
def test_distilling_blindly_keeps_the_last_epoch(teacher, few, monkeypatch, attention):
    """Also where it is the worse one, and without a look at the search split."""
    config = QUICK.model_copy(update={"lr": 1.0, "attention": attention})
    student, other, digests = copy.deepcopy(teacher), copy.deepcopy(teacher), []
    done = distil(
        teacher, other, *few, config, 3, on_epoch=lambda _: digests.append(weights_digest(other))
    )
    monkeypatch.setattr(bestepoch, "score", None)
    numerics = fastest_numerics(torch.device("cpu"), precision=config.precision)
    distil_blindly(teacher, student, few[0], config, 3, numerics=numerics)
    assert weights_digest(student) == digests[-1]
    assert not student.training
    assert done.best_epoch < 2
