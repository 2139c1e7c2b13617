"""The contest of finals: plans trained side by side, round by round, and what that costs."""

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import final

import torch
from torch import nn

from evosearch.machine import device_of
from evosearch.models.precision import fastest_numerics
from evosearch.run.callbacks import Callbacks
from evosearch.run.compared import Compared
from evosearch.run.finalists import CONTROL
from evosearch.run.folder import RunFolder
from evosearch.run.preparation import Prepared
from evosearch.run.shrinking import steps_cost
from evosearch.run.students import student_of
from evosearch.space.cost import Cost
from evosearch.stages import duration
from evosearch.study.halving import Round, epochs_of, halving
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study
from evosearch.tasks.scoring import working_numerics
from evosearch.training.distillation import FinetuneConfig, distil, distil_blindly
from evosearch.training.epochs import Distillation


@final
@dataclass(frozen=True, kw_only=True)
class Contest:
    """Plans that are to be trained side by side, and all that this takes.

    Attributes:
        folder: of the run.
        study: of the run.
        prepared: what the run works with.
        at: the budget, in words.
        config: of a whole training.
        plans: the one without a search, and then the others, best first.
    """

    folder: Path
    study: Study
    prepared: Prepared
    at: str
    config: FinetuneConfig
    plans: Sequence[NamedNetwork]

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits of these finals: of these plans, trained in this way."""
        about = [self.at, self.config.settings, [p.mask.key for p in self.plans]]
        return sha256(json.dumps(about).encode()).hexdigest()[:12]

    @property
    def place(self) -> Path:
        """The folder of these finals."""
        return RunFolder(self.folder).finals / self.key

    @property
    def rounds(self) -> tuple[Round, ...]:
        """How long how many of them are trained."""
        return halving(len(self.plans), self.config.epochs)

    def progress(self, index: int) -> Path:
        """Returns the checkpoint of a plan's training."""
        return RunFolder(self.folder).finalist(self.key, self.plans[index].name)

    def target(self, index: int) -> Path:
        """Returns where the artifact of a plan goes."""
        return RunFolder(self.folder).artifact(self.plans[index].name)

    def image_macs(self, epochs: int, cost: Cost) -> int:
        """Returns what epochs of a network cost, with the base network's outputs."""
        images = epochs * len(self.prepared.subject.data.train)
        base = self.prepared.subject.discovery.space.base_cost
        return steps_cost(images, cost) + images * base.macs


def train_side_by_side(
    contest: Contest, untrained: Sequence[Compared], callbacks: Callbacks
) -> tuple[dict[int, nn.Module], list[Distillation]]:
    """Returns the two networks that are trained to the end, and how all trainings went.

    Args:
        contest: what is trained, and how.
        untrained: the networks of its plans, as they are before training.
        callbacks: told what is being done, and how each training goes.

    Returns:
        The two by their index, and a training for each plan.
    """
    subject = contest.prepared.subject
    ended: dict[int, Distillation] = {}
    alive = list(range(len(untrained)))
    for number, own in enumerate(contest.rounds, 1):
        if ended:
            before = contest.rounds[number - 2].until
            alive = going_on({i: _loss(ended[i], before) for i in alive}, own.networks)
        networks = {}
        for index in alive:
            callbacks.on_stage(
                f"round {number} of {len(contest.rounds)}, {untrained[index].name}: to epoch"
                f" {own.until} of {contest.config.epochs}"
            )
            student = student_of(contest.prepared, untrained[index], contest.config)
            networks[index] = student.network
            ended[index] = distil(
                subject.model,
                student.network,
                subject.data.train,
                subject.data.search,
                contest.config,
                contest.prepared.config.search.seed,
                callbacks.on_epoch,
                task=subject.task,
                progress=contest.progress(index),
                discovery=student.discovery,
                until=own.until,
            )
    return networks, [ended[index] for index in range(len(untrained))]


def going_on(losses: Mapping[int, float], count: int) -> list[int]:
    """Returns the finalists that go on to the next round: the control, and the best others.

    Args:
        losses: index of each finalist -> loss on the search split at the end of the round, in the
            order that breaks ties. That of its best epoch would say less: in a first round, it can
            be that of the network before training.
        count: of the finalists that go on.
    """
    others = sorted((index for index in losses if index != CONTROL), key=losses.__getitem__)
    return [CONTROL, *others[: count - 1]]


def _loss(training: Distillation, epoch: int) -> float:
    """Returns the loss after an epoch, which is not the last one where a kill came later."""
    score = training.history[epoch].search
    assert score is not None
    return score.loss


def forecast(contest: Contest, network: nn.Module) -> str:
    """Returns what finals cost, before they begin; seconds from a few steps of one network."""
    rounds, config = contest.rounds, contest.config
    largest = max((plan.cost for plan in contest.plans), key=lambda cost: cost.macs)
    total = contest.image_macs(epochs_of(rounds), largest)
    steps = f"{rounds[0].networks} networks to epoch {rounds[0].until}"
    steps += "".join(f", {own.networks} to {own.until}" for own in rounds[1:])
    seconds = _seconds(contest, network) * total
    return (
        f"finals: {steps} of {config.epochs}: {total:.3g} image-MACs at most, forward and"
        f" backward, as many as {epochs_of(rounds) / config.epochs:.2f} fine-tunings; about"
        f" {duration(seconds)}"
    )


def _seconds(contest: Contest, network: nn.Module) -> float:
    """Returns what an image-MAC takes, by two steps of a network, once it is warm."""
    subject, config = contest.prepared.subject, contest.config
    train = subject.data.train
    few = train.take(torch.arange(min(len(train), 2 * config.batch_size)))
    fastest = fastest_numerics(device_of(network), precision=config.precision)
    numerics, _ = working_numerics(subject.model, train, fastest, task=subject.task)
    short = config.model_copy(update={"epochs": 1})
    for _ in range(2):
        began = time.perf_counter()
        distil_blindly(
            subject.model,
            copy.deepcopy(network),
            few,
            short,
            contest.prepared.config.search.seed,
            numerics=numerics,
            task=subject.task,
        )
        seconds = time.perf_counter() - began
    share = len(few) / len(train)
    return seconds / (share * contest.image_macs(1, contest.plans[CONTROL].cost))
