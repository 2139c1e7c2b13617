"""The fine-tuning of the finished network of a training under a budget."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from evosearch.errors import InputError
from evosearch.models.build import build_model
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.run.compared import Compared, measured
from evosearch.run.config import RunConfig
from evosearch.run.finetuning import Finetuned, cost_here, require_no_other
from evosearch.run.finished import Trained, load_finished
from evosearch.run.folder import RunFolder
from evosearch.run.planning import pick_plan
from evosearch.run.reopening import held, reopen_training
from evosearch.run.saving import AVERAGED, from_run, save_artifact
from evosearch.run.students import nonzero_json, require_kernels_fit
from evosearch.run.subject import Subject
from evosearch.run.testing import open_ledger
from evosearch.study.finals import finished_name
from evosearch.study.networks import NamedNetwork
from evosearch.study.runtimecost import RuntimeCost
from evosearch.study.study import Study
from evosearch.surgery.narrowing import narrow
from evosearch.training.distillation import FinetuneConfig, distil
from evosearch.training.epochs import Distillation


def finetune_finished(
    folder: Path,
    *,
    pick: str | None = None,
    epochs: int | None = None,
    latency: bool = False,
    callbacks: Callbacks = SILENT,
) -> Finetuned:
    """Trains a finished network further, measures it on test once, and saves it beside that.

    Its teacher is the base network where the training began with that one's weights, and else
    the network itself as it was finished: a whole network with fresh weights teaches nothing.

    Args:
        folder: of the training's run.
        pick: see `planning.pick_plan`; it can only mean the finished network.
        epochs: takes the place of the space's.
        latency: whether it is timed.
        callbacks: told what is being done, and how the distillation goes.

    Raises:
        InputError: the training is not finished, another network is meant, or the settings do
            not go together; before any training.
    """
    study = Study.open(folder)
    finished = load_finished(folder, study)
    if finished is None:
        raise InputError(f"{folder}: the training is not finished; evosearch resume goes on")
    plan = NamedNetwork.of_trial(study.trials[-1])
    if pick is not None and pick_plan(folder, study, pick, None).trial != plan.trial:
        raise InputError(
            f"--pick {pick}: of a training under a budget, the finished network alone was kept,"
            f" which is {plan.name}"
        )
    with held(folder) as log:
        config, subject = reopen_training(folder, study.header, callbacks.on_stage)
        tuning = _settings(config, epochs, finished)
        log.event("finetune", plan=plan.name, epochs=epochs)
        name = f"{plan.name}, fine-tuned"
        places = RunFolder(folder)
        require_no_other(places.artifact(name), tuning)
        section = config.space.model.model_copy(update={"weights": None})
        network = finished.artifact.load(lambda: build_model(section, Path(config.folder)))
        network.to(config.search.device)
        before = Compared(name=finished.network.name, mask=plan.mask, network=network)
        require_kernels_fit(subject.discovery, before, tuning)
        runtimes: list[RuntimeCost] = []
        if latency:
            callbacks.on_stage("latency")
            runtimes = [cost_here(folder, plan)]
        callbacks.on_stage("distillation")
        after, distillation = _further(config, subject, before, tuning, places, name, callbacks)
        callbacks.on_stage("test")
        report = open_ledger(folder, config, subject)
        (tuned,) = measured(
            subject, [after], lambda item: report.measure(item.name, item.network).score
        )
        networks = (finished.network, tuned)
        artifact = save_artifact(
            places.artifact(name),
            config,
            subject,
            after,
            networks=networks,
            card={
                **from_run(folder, study),
                "plan": name,
                "runtimes": [cost.to_json() for cost in runtimes],
                "training": finished.artifact.card["training"],
                "finetune": tuning.settings,
                **nonzero_json(subject.discovery, after, tuning),
                "notes": [
                    "search accuracy is optimistic: the best epochs were selected on that split",
                    f"fine-tuned by {_teacher(config)}; epoch {distillation.best_epoch} of"
                    f" {tuning.epochs} was the best on the search split, and was kept; 0 is the"
                    " network before it",
                    *([AVERAGED] if distillation.best.averaged else []),
                    f"the test split was opened {report.opened} times in this run",
                ],
                "best_epoch": distillation.best_epoch,
            },
        )
        places.progress(name).unlink(missing_ok=True)
        log.event("artifact", folder=artifact.folder, test_opened=report.opened)
    return Finetuned(
        plan=plan,
        within=None,
        networks=networks,
        distillation=distillation,
        artifact=artifact,
        confirmed=None,
        test_opened=report.opened,
    )


def _further(
    config: RunConfig,
    subject: Subject,
    before: Compared,
    tuning: FinetuneConfig,
    places: RunFolder,
    name: str,
    callbacks: Callbacks,
) -> tuple[Compared, Distillation]:
    """Returns a copy of a finished network, trained further, and how that went."""
    student = copy.deepcopy(before.network)
    distillation = distil(
        subject.model if _is_taught_by_base(config) else before.network,
        student,
        subject.data.train,
        subject.data.search,
        tuning,
        config.search.seed,
        callbacks.on_epoch,
        task=subject.task,
        progress=places.progress(name),
        discovery=narrow(subject.discovery, before.mask),
    )
    after = finished_name(before.name, tuning.epochs)
    return replace(before, name=after, network=student), distillation


def _is_taught_by_base(config: RunConfig) -> bool:
    assert config.prune is not None
    return config.prune.weights == "base"


def _teacher(config: RunConfig) -> str:
    return "the base network" if _is_taught_by_base(config) else "itself as it was finished"


def _settings(config: RunConfig, epochs: int | None, finished: Trained) -> FinetuneConfig:
    """Returns how a finished network is trained further.

    Raises:
        InputError: by nothing, or by what it cannot be.
    """
    given: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    tuning = config.space.finetune.model_copy(update=given)
    if not tuning.epochs:
        raise InputError(
            f"{finished.artifact.folder}: the finished network is saved already; fine-tuning it"
            " takes an epoch or more"
        )
    if tuning.implants is not None:
        raise InputError(
            "[finetune] implants are filters of a trained base network that its plan dropped: the"
            " finished network of a training takes none"
        )
    if tuning.pace is not None:
        raise InputError(
            "[finetune] pace shrinks a base network to a plan, and the finished network of a"
            " training has its channels: leave it out"
        )
    return tuning
