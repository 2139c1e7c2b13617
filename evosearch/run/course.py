"""The course of a training under a budget: its networks recorded, the last of them finished.

The trials of its study are the networks that it went through: each is recorded as training left
it, the last as it is finished.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from evosearch.criteria import criterion_class
from evosearch.criteria.learned import learned_gates
from evosearch.machine import torch_seeded
from evosearch.models.build import build_model
from evosearch.models.copying import copied
from evosearch.models.precision import fastest_numerics
from evosearch.models.weights import load_state
from evosearch.run.callbacks import Callbacks
from evosearch.run.choosing import Scorer, floored
from evosearch.run.config import RunConfig
from evosearch.run.cycles import Cycle, next_budget
from evosearch.run.finished import Trained, load_finished, save_finished
from evosearch.run.folder import RunFolder
from evosearch.run.log import RunLog
from evosearch.run.shrinking import Shrinking
from evosearch.run.subject import Subject
from evosearch.run.tolerated import tolerated_points
from evosearch.run.waypoints import Waypoints
from evosearch.seeding import Stream, integer
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.resources import RESOURCES
from evosearch.study.study import Study
from evosearch.surgery.compaction import compact, cut
from evosearch.surgery.gating import gates_of
from evosearch.surgery.narrowing import narrow
from evosearch.tasks.scoring import working_numerics
from evosearch.training.base_training import label_loss
from evosearch.training.bestepoch import BestEpoch
from evosearch.training.checkpoint import Checkpoint
from evosearch.training.gated import Gated
from evosearch.training.pacing import parse_pace
from evosearch.training.parts import Part
from evosearch.training.penalized import Penalized
from evosearch.training.trainer import Training

SCORING_BATCH = 128
"""Calibration images in one pass where channels are scored, at most."""


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
        self._device = torch.device(config.search.device)
        self._checkpoint = Checkpoint(self._places.training, self._study.header.config_digest)
        floor = floored(subject.discovery.space, config.prune.floor)
        self._discovery = replace(subject.discovery, space=floor)
        self._scorer = self._make_scorer()
        self._waypoints = Waypoints(
            folder=folder,
            study=self._study,
            subject=subject,
            recipe=config.prune.recipe,
            log=log,
            callbacks=callbacks,
        )
        self._rewound: Mapping[str, Tensor] = {}

    def finish(self) -> Trained:
        """Trains to the end from where it stands, and saves what comes of it."""
        done = load_finished(self._folder, self._study)
        if done is not None:
            return done
        subject, budget = self._subject, self._study.budget.at(1.0)
        space, state = subject.discovery.space, self._checkpoint.load()
        cycle = Cycle(number=0, mask=space.full_mask())
        if state is not None:
            cycle = Cycle.from_json(state["cycle"], space.sizes)
            self._rewound = state["rewound"]
        network = compact(subject.model, space.groups, cycle.mask)
        while True:
            network, shrinking, best = self._train(network, cycle, state)
            assert best.mask is not None
            mask, last = cycle.mask.then(best.mask), best.history[-1]
            number, t = cycle.number + shrinking.left, last.epoch / last.epochs
            if number and self._study.trials[number - 1].mask == mask:
                number -= 1  # it was left for a smaller one that did not keep the accuracy
            trial = self._waypoints.record(network, mask, number, t)
            cycle = Cycle(
                number=cycle.number + 1,
                mask=mask,
                image_macs=cycle.image_macs + shrinking.image_macs,
                seconds=cycle.seconds + last.seconds,
            )
            if budget.violation(trial.cost) == 0:
                break
            network, cycle = self._next(network, cycle, trial.cost, budget)
            state = None
        self._callbacks.on_stage("test")
        done = save_finished(
            self._folder, self._config, subject, self._study, network, trial, cycle, best.epoch
        )
        self._log.event("artifact", folder=done.artifact.folder)
        return done

    def _train(
        self, network: nn.Module, cycle: Cycle, state: Mapping[str, Any] | None
    ) -> tuple[nn.Module, Shrinking, BestEpoch]:
        """Trains a network for all epochs, and returns it as it is kept."""
        config, subject = self._config, self._subject
        train, seed = config.space.train, config.search.seed
        rewind = self._prune.rewind if isinstance(self._prune.rewind, int) else 0
        begun = rewind if cycle.number else 0
        shrinking = self._shrinking(cycle)
        best = BestEpoch(
            network,
            subject.data.search,
            train.epochs,
            self._callbacks.on_epoch,
            subject.task,
            begun=begun,
            least_accuracy=self._study.budget.least_accuracy,
        )
        parts: list[Part] = [shrinking, *self._gates(cycle)]
        if self._prune.penalties:
            parts.append(Penalized(self._prune.penalties, lambda: shrinking.tolerance))
        parts.append(best)
        rng = torch.Generator().manual_seed(integer(seed, Stream.BASE_TRAINING, "images"))
        fastest = fastest_numerics(self._device, precision="float32")
        numerics, _ = working_numerics(network, subject.data.train, fastest, task=subject.task)
        with torch_seeded(integer(seed, Stream.BASE_TRAINING, "dropout"), self._device):
            training = Training(
                network,
                subject.data.train,
                train,
                label_loss(network, train, subject.task),
                rng,
                numerics=numerics,
                discovery=narrow(self._discovery, cycle.mask),
                parts=parts,
                begun=begun,
            )
            if state is None:
                best.record(None)
                shrinking.scored(best.accuracy)
            else:
                training.restore(state["training"])
            epochs = training.epochs()
            while not shrinking.is_over and (train_loss := next(epochs, None)) is not None:
                if shrinking.may_finish:
                    training.measure_norms()
                best.record(train_loss)
                shrinking.scored(best.accuracy)
                if not cycle.number and best.history[-1].epoch == rewind:
                    here = network.state_dict()  # gates among it, which are not gone back to
                    self._rewound = {n: here[n].clone() for n in subject.model.state_dict()}
                self._checkpoint.save(
                    {
                        "cycle": cycle.to_json(),
                        "rewound": self._rewound,
                        "training": training.state(),
                    }
                )
        assert best.mask is not None
        if best.mask != training.mask:  # cut since
            kept = cycle.mask.then(best.mask)
            network = compact(subject.model, subject.discovery.space.groups, kept)
        best.keep_best(network)
        return network, shrinking, best

    def _gates(self, cycle: Cycle) -> list[Part]:
        """Returns what learns gates, where channels are scored by such."""
        kind = learned_gates(criterion_class(self._prune.criterion))
        if kind is None:
            return []
        seed = integer(self._config.search.seed, Stream.BASE_TRAINING, "gates", cycle.number)
        rng = torch.Generator().manual_seed(seed)
        return [Gated(kind, self._study.budget.at(1.0), rng)]

    def _shrinking(self, cycle: Cycle) -> Shrinking:
        """Returns what cuts a training; one of several is cut before it begins, and not in it."""
        budget, space = self._study.budget.at(1.0), self._discovery.space
        drop = tolerated_points(self._study.header)
        if self._prune.drop or drop is not None:
            cost = space.cost(cycle.mask) if drop is None else space.smallest_cost
            budget = Budget.exactly(**{name: getattr(cost, name) for name in budget.bounds})
        return Shrinking(
            config=self._prune,
            pace=parse_pace(self._prune.pace, self._config.space.train.epochs, drop=drop),
            budget=budget,
            scorer=self._scorer,
            on_leave=self._waypoints.record,
            on_change=self._show,
        )

    def _make_scorer(self) -> Scorer:
        seed = self._config.search.seed
        few = self._subject.data.calibration.shuffled(seed, self._prune.images)
        batches = [
            (images.to(self._device), labels.to(self._device))
            for images, labels in few.batches(SCORING_BATCH)
            if len(images) > 1  # BatchNorm cannot take statistics of a single image
        ]
        return Scorer(config=self._prune, batches=batches, task=self._subject.task, seed=seed)

    def _next(
        self, network: nn.Module, cycle: Cycle, cost: Cost, budget: Budget
    ) -> tuple[nn.Module, Cycle]:
        """Returns the network that the next training begins with, and where it begins."""
        subject, config = self._subject, self._config
        space, here = self._discovery.space, narrow(self._discovery, cycle.mask)
        assert self._prune.drop, "one training ends within the budget"
        target = next_budget(cost, space.base_cost, budget, self._prune.drop)
        inner = self._scorer.mask(network, here, space, target, cycle.number)
        if (gates := gates_of(network)) is not None:
            gates.discard()
        cycle = replace(cycle, mask=cycle.mask.then(inner))
        self._show(space.cost(cycle.mask), target)
        if self._prune.rewind == "keep":
            cut(network, here.space.groups, inner)
            return network, cycle
        model = subject.model
        if self._prune.rewind == "fresh":
            fresh = integer(config.search.seed, Stream.BASE_TRAINING, "weights", cycle.number)
            section = config.space.model.model_copy(update={"weights": None})
            model = build_model(section, Path(config.folder), seed=fresh).to(self._device)
        if self._rewound:
            model = copied(model)
            load_state(model, self._rewound)
        return compact(model, space.groups, cycle.mask), cycle

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
