"""The course of a training under a budget: its networks recorded, the last of them finished.

The trials of its study are the networks that it went through: each is recorded as training left
it, the last as it is finished.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import nn

from evosearch.errors import InputError
from evosearch.export.artifact import Artifact
from evosearch.export.card import network_from_card, network_json
from evosearch.machine import environment, torch_seeded
from evosearch.models.copying import copied
from evosearch.models.precision import fastest_numerics
from evosearch.run.callbacks import Callbacks
from evosearch.run.config import RunConfig
from evosearch.run.folder import RunFolder
from evosearch.run.log import RunLog
from evosearch.run.shrinking import Scorer, Shrinking, steps_cost
from evosearch.run.subject import Subject
from evosearch.seeding import Stream, generator, integer
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.study.networks import NamedNetwork
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from evosearch.study.trial import Evaluation, Rung, Step, Trial, TrialState
from evosearch.tasks.scoring import image_scores, working_numerics
from evosearch.tasks.testing import TestReport
from evosearch.training.base_training import label_loss
from evosearch.training.bestepoch import BestEpoch
from evosearch.training.checkpoint import Checkpoint
from evosearch.training.pacing import parse_pace
from evosearch.training.parts import Part
from evosearch.training.penalized import Penalized
from evosearch.training.trainer import Training

SCORING_BATCH = 128
"""Calibration images in one pass where channels are scored, at most."""


@final
@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of a training under a budget.

    Attributes:
        network: the finished one.
        artifact: the same on disk.
        recipe: how it was trained.
        seconds: that training took, with the scoring of channels and epochs.
        image_macs: what its steps cost, forward and backward: images times MACs.
        share: of what as many epochs of the whole network cost in these.
    """

    network: NamedNetwork
    artifact: Artifact
    recipe: str
    seconds: float
    image_macs: int
    share: float


@final
class Course:
    """A training under a budget that this process holds."""

    def __init__(
        self, folder: Path, config: RunConfig, subject: Subject, log: RunLog, callbacks: Callbacks
    ) -> None:
        """Takes a run whose lock this process holds.

        Args:
            folder: of the run.
            config: everything that it was asked for.
            subject: the whole network as it was before training, on the run's device; data, space.
            log: of the run.
            callbacks: told how it goes.
        """
        assert config.prune is not None
        self._folder, self._config, self._subject = folder, config, subject
        self._log, self._callbacks, self._prune = log, callbacks, config.prune
        self._places = RunFolder(folder)
        self._study = Study.open_for_appending(folder)

    def finish(self) -> Trained:
        """Trains to the end from where it stands, and saves what comes of it."""
        done = self._known()
        if done is not None:
            return done
        config, subject = self._config, self._subject
        train, seed = config.space.train, config.search.seed
        network = copied(subject.model).to(config.search.device)
        shrinking = self._shrinking()
        best = BestEpoch(
            network, subject.data.search, train.epochs, self._callbacks.on_epoch, subject.task
        )
        penalties = [Penalized(self._prune.penalties)] if self._prune.penalties else []
        parts: list[Part] = [shrinking, *penalties, best]
        checkpoint = Checkpoint(self._places.training, self._study.header.config_digest)
        rng = torch.Generator().manual_seed(integer(seed, Stream.BASE_TRAINING, "images"))
        dropout = integer(seed, Stream.BASE_TRAINING, "dropout")
        place = torch.device(config.search.device)
        fastest = fastest_numerics(place, precision="float32")
        numerics, _ = working_numerics(network, subject.data.train, fastest, task=subject.task)
        with torch_seeded(dropout, place):
            training = Training(
                network,
                subject.data.train,
                train,
                label_loss(network, train, subject.task),
                rng,
                numerics=numerics,
                discovery=subject.discovery,
                parts=parts,
            )
            saved = checkpoint.load()
            if saved is None:
                best.record(None)
            else:
                training.restore(saved)
            for train_loss in training.epochs():
                if shrinking.is_done:
                    training.measure_norms()
                best.record(train_loss)
                checkpoint.save(training.state())
        best.keep_best()
        assert training.mask is not None
        trial = self._record(network, training.mask, shrinking.left, 1.0)
        return self._saved(network, trial, best, shrinking.image_macs)

    def _shrinking(self) -> Shrinking:
        config, subject, study = self._config, self._subject, self._study
        calibration, seed = subject.data.calibration, config.search.seed
        order = generator(seed, Stream.STATISTICS, "order").permutation(len(calibration))
        place = torch.device(config.search.device)
        few = calibration.take(order[: self._prune.images])
        batches = [(x.to(place), y.to(place)) for x, y in few.batches(SCORING_BATCH) if len(x) > 1]
        return Shrinking(
            config=self._prune,
            pace=parse_pace(self._prune.pace, config.space.train.epochs),
            budget=study.budget.at(1.0),
            scorer=Scorer(config=self._prune, batches=batches, task=subject.task, seed=seed),
            on_leave=self._record,
            on_change=self._show,
        )

    def _record(self, network: nn.Module, mask: Mask, number: int, t: float) -> Trial:
        """Returns the trial of a network as training leaves it, recorded once.

        Args:
            network: as it is now.
            mask: its channels, of those of the whole network.
            number: of the trial.
            t: share of the training's steps that are done.

        Raises:
            InputError: the study has another one, so that this is not the training that it was.
        """
        study = self._study
        if number < len(study.trials):
            if study.trials[number].mask != mask:
                raise InputError(
                    f"{self._folder}: trial {number} has other channels than this training gives"
                    " again: another machine or version computes otherwise; start a new run"
                )
            return study.trials[number]
        subject, began = self._subject, time.perf_counter()
        scores = image_scores(network, subject.data.search, task=subject.task)
        seconds, result = time.perf_counter() - began, scores.score
        ScoreStore(self._places.scores).put(mask, scores)
        step = Step(rung=Rung.FULL, score=result.loss, images=result.images, seconds=seconds)
        trial = Trial(
            number=number,
            generation=number,
            mask=mask,
            genome={"recipe": self._prune.recipe, "t": t},
            cost=subject.discovery.space.cost(mask),
            state=TrialState.COMPLETE,
            evaluation=Evaluation(score=result, seconds=seconds),
            steps=(step,),
        )
        study.append(trial)
        self._log.trial(trial)
        self._callbacks.on_trial(trial)
        return trial

    def _show(self, cost: Cost, budget: Budget) -> None:
        base = self._study.header.base_cost
        sizes = [
            f"{resource.shown(resource.of(cost))}{resource.unit}"
            f" ({resource.of(cost) / resource.of(base):.1%}; the budget in force is"
            f" {bound.high / resource.of(base):.1%})"
            for name, bound in budget.bounds.items()
            for resource in [RESOURCES[name]]
        ]
        self._log.event("cut", **{name: getattr(cost, name) for name in budget.bounds})
        self._callbacks.on_stage(f"the network has {', '.join(sizes)}")

    def _saved(
        self, network: nn.Module, trial: Trial, best: BestEpoch, image_macs: int
    ) -> Trained:
        """Measures the finished network on test, once, and saves it."""
        config, subject, header = self._config, self._subject, self._study.header
        self._callbacks.on_stage("test")
        folder = Path(config.folder)
        report = TestReport(self._places.test, config.space.data, folder, task=subject.task)
        plan, epochs = f"trial {trial.number}", config.space.train.epochs
        name = f"{plan}, trained by {self._prune.recipe}"
        test = report.measure(name, network).score
        named = replace(NamedNetwork.of_trial(trial), name=name, test=test)
        whole = steps_cost(epochs * len(subject.data.train), header.base_cost)
        card = {
            "run": str(self._folder),
            "plan": plan,
            "strategy": self._prune.recipe,
            "seed": header.seed,
            "space_digest": header.space_digest,
            "networks": [network_json(named, header.base_cost)],
            "training": {
                "prune": self._prune.model_dump(mode="json"),
                "train": config.space.train.model_dump(mode="json"),
                "seconds": best.history[-1].seconds,
                "image_macs": image_macs,
                "share": image_macs / whole,
            },
            "notes": [
                "search accuracy is optimistic: the best epoch was selected on that split",
                f"epoch {best.epoch} of {epochs} was the best on the search split of those after"
                " the last cut, and was kept",
                f"the test split was opened {report.opened} times in this run",
            ],
            "best_epoch": best.epoch,
            "environment": environment(torch.get_num_threads()),
        }
        artifact = Artifact.save(
            self._places.artifact(plan),
            network=network,
            base=subject.model,
            mask=trial.mask,
            model_section=config.space.model.model_dump(mode="json", exclude_none=True),
            space_folder=folder,
            card=card,
        )
        self._places.training.unlink(missing_ok=True)
        self._log.event("artifact", folder=artifact.folder, test_opened=report.opened)
        return _trained(artifact, named)

    def _known(self) -> Trained | None:
        """Returns what came of this training, where it was finished."""
        study = self._study
        if not study.trials:
            return None
        trial = study.trials[-1]
        folder = self._places.artifact(f"trial {trial.number}")
        if not folder.exists():
            return None
        artifact = Artifact.open(folder)
        return _trained(artifact, network_from_card(artifact.card["networks"][-1], trial.mask))


def _trained(artifact: Artifact, network: NamedNetwork) -> Trained:
    training = artifact.card["training"]
    return Trained(
        network=network,
        artifact=artifact,
        recipe=training["prune"]["recipe"],
        seconds=training["seconds"],
        image_macs=training["image_macs"],
        share=training["share"],
    )
