"""The steps of `evosearch/training/README.md`, followed as they are written."""

import math
from typing import get_args

import pytest
import torch
from torch import nn

from evosearch.models.weights import weights_digest
from evosearch.models.zoo import digits_resnet
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.training import optimizers, trainer
from evosearch.training.base_training import TrainConfig
from evosearch.training.optimizers import OPTIMIZERS, Optimizer
from tests.readmes import code_blocks, edited, inline_code

OBJECTIVE, OPTIMIZER, SCHEDULE = code_blocks("training", "python")
QUICK = TrainConfig(epochs=3, batch_size=32, lr=0.05)


def rng():
    return torch.Generator().manual_seed(0)


def network():
    torch.manual_seed(0)
    return digits_resnet(width=4)


def test_an_objective_of_your_own(few):
    written = {}
    exec(compile(OBJECTIVE, "README.md", "exec"), written)
    digests = []
    for seed in (3, 3, 4):
        model = network()
        losses = written["train"](model, few[0], CLASSIFICATION, QUICK, seed)
        assert len(losses) == 3
        assert losses[-1] < losses[0]
        digests.append(weights_digest(model))
    assert digests[0] == digests[1] != digests[2]


def test_an_optimizer(monkeypatch, few):
    table, last, row = (
        "OPTIMIZERS: dict[",
        '    "muon": _muon,\n',
        inline_code("training", '"adamw"'),
    )
    literal = 'Optimizer = Literal["auto", "muon", "sgd"]'
    shipped = edited(
        optimizers,
        (table, f"{OPTIMIZER}\n\n{table}"),
        (last, f"{last}    {row}\n"),
        (literal, inline_code("training", "Optimizer = Literal")),
    )
    assert set(get_args(shipped.Optimizer)) == {"auto", *shipped.OPTIMIZERS}
    monkeypatch.setattr(trainer, "OPTIMIZERS", shipped.OPTIMIZERS)

    model, oracle = network(), network().train()
    whole = TrainConfig(epochs=1, batch_size=192, lr=0.05)

    def objective(images, labels):
        return CLASSIFICATION.losses(model(images), labels).mean()

    list(trainer.Training(model, few[0], whole, objective, rng(), optimizer="adamw").epochs())
    adamw = torch.optim.AdamW(oracle.parameters(), lr=0.001, weight_decay=whole.weight_decay)
    drawn = rng()
    images, labels = few[0].batch(torch.randperm(192, generator=drawn), drawn)
    CLASSIFICATION.losses(oracle(images), labels).mean().backward()
    adamw.step()
    for found, expected in zip(model.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_literal_lists_the_table():
    assert set(get_args(Optimizer)) == {"auto", *OPTIMIZERS}


def test_a_training_schedule(few):
    shipped = edited(
        trainer,
        ("import CosineAnnealingLR\n", "import LambdaLR\n"),
        ("@final\nclass Training:", f"{SCHEDULE}\n\n@final\nclass Training:"),
        ("CosineAnnealingLR(part,", "warmed_up(part,"),
    )
    model, rates = nn.Linear(64, 1), []

    def objective(images, labels):
        rates.append(training._optimizers[0].param_groups[0]["lr"])
        return model(images.flatten(1)).square().mean()

    def begun():
        schedule = TrainConfig(epochs=5, batch_size=32, lr=0.05)
        return shipped.Training(model, few[0], schedule, objective, rng())

    training = begun()
    next(training.epochs())
    state = training.state()
    training = begun()  # goes on as after a kill
    training.restore(state)
    list(training.epochs())
    # Of 5 x 6 steps, 3 rise to the full rate; the cosine is at its half in the middle.
    assert len(rates) == 30
    assert rates[:2] == pytest.approx([0.05 / 3, 0.1 / 3])
    assert max(rates) == rates[2] == pytest.approx(0.05 * (1 + math.cos(math.pi / 15)) / 2)
    assert rates[15] == pytest.approx(0.025)
    assert rates[29] == pytest.approx(0.05 * (1 - math.cos(math.pi / 30)) / 2)
