"""Losses, metrics and outputs of a task of one's own, by hand, wherever they are used."""

import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from evosearch.data import splits as data
from evosearch.engine.config import EvaluatorConfig
from evosearch.engine.evaluator import MaskEvaluator
from evosearch.errors import EvaluationError, InputError
from evosearch.models.zoo import digits_resnet
from evosearch.surgery.discovery import GroupRules, discover
from evosearch.tasks import testing
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.config import TaskConfig, load_task, task_digest
from evosearch.tasks.scoring import image_scores, score
from evosearch.tasks.task import main_output
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.distillation import FinetuneConfig, distil
from evosearch.training.objective import distillation_loss
from tests.data.helpers import split_of

OWN = """
def loss(output, target):
    return (output - target[:, None]).abs().sum(1)

def metric(output, target):
    return ((output - target[:, None]).abs() < 1).float().mean(1)

def output(returned):
    return returned["heat"]
"""


class Heat(nn.Module):
    """Gives its pixels under a name of its own, times a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return {"other": images, "heat": images.flatten(1) * self.weight}


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    names = {key: f"own.py:{key}" for key in ("loss", "metric", "output")}
    return load_task(TaskConfig(**names), tmp_path)


IMAGES = torch.tensor([[0.0, 1.0], [2.0, 2.5], [1.0, 5.0]])[:, None, None, :]
TARGETS = [0.0, 2.0, 1.0]
# |output - target| is (0, 1), (0, 0.5), (0, 4).
LOSSES, METRICS = [1.0, 0.5, 4.0], [0.5, 1.0, 0.5]


def test_scoring_by_hand(own):
    split = split_of(data.SearchSplit, IMAGES, TARGETS)
    scores = image_scores(Heat(), split, task=own, batch_size=2)
    assert scores.losses == pytest.approx(LOSSES)
    assert scores.metrics == pytest.approx(METRICS)
    result = score(Heat(), split, task=own)
    assert result.loss == pytest.approx(5.5 / 3)
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.accuracy_se == pytest.approx(np.std(METRICS, ddof=1) / math.sqrt(3))


def test_base_training_by_hand(own):
    """One step on all three: d loss / d weight is the mean of sign(error) . output = 1 + 2.5/3."""
    split = split_of(data.TrainSplit, IMAGES + 0.25, TARGETS)
    model = Heat()
    config = TrainConfig(epochs=1, batch_size=3, lr=0.01, weight_decay=0.0)
    history = train_base(model, split, None, config, 0, task=own)
    errors = (IMAGES.flatten(1) + 0.25 - torch.tensor(TARGETS)[:, None]).abs()
    assert history[0].train_loss == pytest.approx(errors.sum(1).mean().item())
    gradient = (IMAGES.flatten(1) + 0.25).sum(1).mean().item()
    # Nesterov's first step is (1 + momentum) gradients.
    assert model.weight.item() == pytest.approx(1 - 0.01 * 1.9 * gradient, rel=1e-5)


def test_distillation_by_hand(own):
    student, teacher = torch.tensor([[0.0, 3.0]]), torch.tensor([[0.0, 1.0]])
    options = {"temperature": 2.0, "task": own}
    hard = distillation_loss(student, teacher, torch.tensor([0.0]), alpha=0.0, **options)
    assert hard.item() == pytest.approx(3.0)
    p = torch.softmax(teacher / 2, 1)
    soft = (p * (p.log() - torch.log_softmax(student / 2, 1))).sum().item()
    both = distillation_loss(student, teacher, torch.tensor([0.0]), alpha=0.25, **options)
    assert both.item() == pytest.approx(0.75 * 3 + 0.25 * 4 * soft, rel=1e-5)


def test_outputs_with_positions_are_softened_at_each():
    task = replace(CLASSIFICATION, loss=lambda output, target: output.flatten(1).mean(1))
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    options = {"temperature": 2.0, "alpha": 1.0, "task": task}
    whole = distillation_loss(student, teacher, torch.zeros(2), **options)
    rows = [x.permute(0, 2, 3, 1).reshape(40, 3) for x in (student, teacher)]
    single = distillation_loss(*rows, torch.zeros(40), **options)
    assert whole.item() == pytest.approx(single.item(), rel=1e-5)


def test_outputs_without_classes_cannot_be_softened():
    task = replace(CLASSIFICATION, loss=lambda output, target: output)
    one, labels = torch.zeros(2), torch.zeros(2)
    with pytest.raises(InputError, match=r"alpha = 0.9: .*logits .* is \(2,\); set it to 0"):
        distillation_loss(one, one, labels, temperature=4.0, alpha=0.9, task=task)


def test_fine_tuning_follows_the_task(own):
    torch.manual_seed(0)
    train = split_of(data.TrainSplit, torch.rand(64, 1, 1, 2), [0.0] * 64)
    search = split_of(data.SearchSplit, torch.rand(16, 1, 1, 2), [0.0] * 16)
    student = Heat()
    config = FinetuneConfig(epochs=4, batch_size=16, lr=0.05, alpha=0.0)
    outcome = distil(Heat(), student, train, search, config, 0, task=own)
    assert abs(student.weight.item()) < 0.5
    assert outcome.best.search.loss < 0.5 * outcome.history[0].search.loss
    assert outcome.best.search == score(student, search, task=own)


def test_masks_are_scored_by_the_task(few):
    train, search = few
    torch.manual_seed(0)
    model = digits_resnet(width=4).eval()
    calibration = data.CalibrationSplit(
        images=train.images, labels=train.labels, indices=train.indices
    )
    discovery = discover(model, (torch.randn(2, 1, 8, 8),), GroupRules(), seed=0)

    def loss(output, target):
        return output.square().sum(1) + target

    task = replace(CLASSIFICATION, loss=loss, metric=lambda output, target: target / 10)
    evaluator = MaskEvaluator(
        model=model, discovery=discovery, calibration=calibration, search=search,
        config=EvaluatorConfig(precision="float32"), seed=0, task=task,
    )  # fmt: skip
    found = evaluator.evaluate(discovery.space.full_mask()).score
    with torch.no_grad():
        expected = loss(model(search.images[:]), search.labels).mean()
    assert found.loss == pytest.approx(expected.item(), rel=1e-5)
    assert found.accuracy == pytest.approx(search.labels.double().mean().item() / 10)


def test_the_test_split_is_judged_by_the_task(tmp_path, digits_config):
    task = replace(
        CLASSIFICATION,
        loss=lambda output, target: target.double(),
        metric=lambda o, t: (t == 3) * 1.0,
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    report = testing.TestReport(tmp_path / "test.json", digits_config, task=task)
    labels = data.load_test_split(digits_config).labels.double()
    result = report.measure("base", model).score
    assert result.loss == pytest.approx(labels.mean().item())
    assert result.accuracy == pytest.approx((labels == 3).double().mean().item())


# Outputs

Named = namedtuple("Named", ["aux", "logits"])
Plain = namedtuple("Plain", ["first", "second"])


@dataclass
class Fields:
    aux: torch.Tensor
    out: torch.Tensor


ONE, TWO = torch.ones(2, 3), torch.zeros(2, 3)


@pytest.mark.parametrize(
    "returned",
    [
        ONE,
        {"out": ONE, "aux": TWO},
        OrderedDict(aux=TWO, logits=ONE),
        {"heat": ONE, "aux": TWO},
        Named(TWO, ONE),
        Plain(ONE, TWO),
        Fields(TWO, ONE),
        (ONE, TWO),
        [ONE],
    ],
)
def test_the_main_output(returned):
    assert main_output(returned) is ONE
    assert CLASSIFICATION.outputs(returned) is ONE


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ((), "expected a tensor .*, got a tuple; the model returns a tuple"),
        ({"out": {"x": ONE}}, "got a dict; the model returns a dict"),
        (None, "got a NoneType"),
        (torch.tensor(1.0), "got a number"),
    ],
)
def test_outputs_that_are_no_tensor(returned, message):
    with pytest.raises(InputError, match=message):
        CLASSIFICATION.outputs(returned)


# Contracts


@pytest.mark.parametrize(
    ("key", "function", "message"),
    [
        ("loss", lambda o, t: o.sum(), r"loss: expected one number per image, \(3,\), got \(\);"),
        ("loss", lambda o, t: o, r"got \(3, 2\); .*reduction=\"none\""),
        ("loss", lambda o, t: 1.0, "got float"),
        ("loss", lambda o, t: {}["x"], "loss: KeyError: 'x'"),
        ("metric", lambda o, t: o[:, :1], r"metric: .* got \(3, 1\)"),
        ("metric", lambda o, t: o.sum(1), r"metric: expected values in \[0, 1\], got 1 to 6"),
        ("metric", lambda o, t: o[:, 0] * math.nan, r"got nan to nan"),
        ("output", lambda returned: returned["x"], "output: .*Error"),
    ],
)
def test_callables_that_break_the_contract(key, function, message):
    split = split_of(data.SearchSplit, IMAGES, [0, 1, 0])
    with pytest.raises(InputError, match=rf"\[task\] {message}|\[task\] {key}: .*{message}") as e:
        score(nn.Flatten(), split, task=replace(CLASSIFICATION, **{key: function}))
    assert "\n" not in str(e.value)


def test_a_loss_that_is_not_finite_fails_the_candidate():
    split = split_of(data.SearchSplit, IMAGES, [0, 1, 0])
    task = replace(CLASSIFICATION, loss=lambda output, target: target / 0)
    with pytest.raises(EvaluationError, match="not finite on 3 of 3"):
        score(nn.Flatten(), split, task=task)


def test_labels_that_are_no_classes_need_a_task():
    split = split_of(data.SearchSplit, IMAGES, TARGETS)
    message = r"shape \(3,\) and type torch.float32 are no classes; give \[task\] loss and metric"
    with pytest.raises(InputError, match=message):
        score(nn.Flatten(), split)


def test_smoothed_labels_are_for_cross_entropy(own, few):
    config = TrainConfig(label_smoothing=0.1)
    with pytest.raises(InputError, match=r"label_smoothing is for cross-entropy; \[task\] has"):
        train_base(Heat(), few[0], None, config, 0, task=own)


def test_names_that_do_not_exist(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(InputError, match=r"\[task\] metric: .*did you mean 'metric'"):
        load_task(TaskConfig(metric="own.py:metrics"), tmp_path)
    assert load_task(TaskConfig(), tmp_path) == CLASSIFICATION


def test_the_digest_of_a_task_sees_each_of_its_callables_and_their_code(tmp_path):
    def digest(**named):
        return task_digest(TaskConfig(**named), tmp_path)

    (tmp_path / "own.py").write_text(OWN)
    before = digest(loss="own.py:loss")
    kinds = {digest(), before, digest(metric="own.py:loss"), digest(loss="own.py:metric")}
    assert len(kinds) == 4
    (tmp_path / "own.py").write_text(OWN + "# A comment.")
    assert digest(loss="own.py:loss") == before
    (tmp_path / "own.py").write_text(OWN.replace("< 1", "< 2"))
    assert digest(loss="own.py:loss") not in kinds
    assert digest() in kinds
    with pytest.raises(InputError, match=r"\[task\] metric: unknown callable"):
        digest(metric="own.py:metrics")
