"""The fine-tuning of a run's network: cut, distilled, measured on test, and saved."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from evosearch.errors import InputError
from evosearch.export.artifact import Artifact
from evosearch.latency.bench import SECONDS
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.run.compared import (
    Compared,
    base_of,
    built,
    compared_budget,
    global_within,
    measured,
    plain_within,
)
from evosearch.run.folder import RunFolder
from evosearch.run.freshtiming import time_fresh
from evosearch.run.implanting import implanted, require_counted
from evosearch.run.measurer import RunMeasurer
from evosearch.run.picking import picked
from evosearch.run.preparation import Prepared
from evosearch.run.saving import AVERAGED, SELECTED, cut_note, from_run, opened_note, save_artifact
from evosearch.run.students import nonzero_json, require_kernels_fit, student_of
from evosearch.run.testing import open_ledger
from evosearch.space.budget import Budget
from evosearch.study.accuracy_certificate import ConfirmedNetwork
from evosearch.study.certificate import certificate_of
from evosearch.study.finals import finished_name
from evosearch.study.networks import NamedNetwork
from evosearch.study.runtimecost import RuntimeCost
from evosearch.study.study import Study
from evosearch.training.distillation import FinetuneConfig, distil
from evosearch.training.epochs import Distillation


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What came of fine-tuning a plan.

    Attributes:
        plan: the one that was picked.
        within: what the plans without a search are the largest of their kind within, in words;
            None where there are none beside it.
        networks: base, lowest-L1 uniform, global without a search (and distilled, where that was
            asked for), searched, searched and distilled; of a training under a budget, finished,
            finished and distilled.
        distillation: how it went; None where no epoch was asked for.
        artifact: the last of the networks on disk.
        confirmed: its drop against the base network; None without confirmation images.
        test_opened: how often the run opened the test split so far.
    """

    plan: NamedNetwork
    within: str | None
    networks: tuple[NamedNetwork, ...]
    distillation: Distillation | None
    artifact: Artifact
    confirmed: ConfirmedNetwork | None
    test_opened: int

    def __repr__(self) -> str:
        return f"Finetuned({self.networks[-1]}, {self.distillation}, {self.artifact})"


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A plan that is to be fine-tuned, and all that this takes.

    Attributes:
        folder: of the run.
        study: of the run.
        prepared: what the run works with.
        plan: the network that was picked.
        at: the budget that it was picked for, as written; None where it was picked by itself.
        config: how it is distilled.
        baselines: whether the plan without a search is distilled alike.
        latency: whether it is timed.
    """

    folder: Path
    study: Study
    prepared: Prepared
    plan: NamedNetwork
    at: str | None
    config: FinetuneConfig
    baselines: bool
    latency: bool

    @property
    def target(self) -> Path:
        """Where the artifact goes."""
        return RunFolder(self.folder).artifact(self.plan.name)

    @property
    def budget(self) -> tuple[Budget, str]:
        """The budget that it is compared at, its own cost where none was named; and its name."""
        if self.config.implants is not None:
            return self.study.budget.at(1.0), "the run's budget"
        return compared_budget(self.study, self.prepared, self.plan, self.at)


def finetune(
    folder: Path,
    *,
    pick: str | None = None,
    at: str | None = None,
    epochs: int | None = None,
    baselines: bool = False,
    latency: bool = False,
    callbacks: Callbacks = SILENT,
) -> Finetuned:
    """Distils a plan of a run, measures it on test once, and saves the artifact.

    What a kill cuts short goes on from its last epoch when it is called again.

    Args:
        folder: of the run.
        pick: see `planning.pick_plan`.
        at: a budget; see `picking.picked`.
        epochs: takes the place of the space's; with 0 the network stays as it was cut.
        baselines: whether the global plan without a search is distilled alike, beside it.
        latency: whether the plan is timed; under a latency budget it is in any case.
        callbacks: told what is being done, and how the distillation goes.

    Raises:
        InputError: no such run or trial, or nothing fits the budget.
    """
    with picked(folder, pick=pick, at=at, callbacks=callbacks) as run:
        run.log.event("finetune", plan=run.plan.name, epochs=epochs)
        config = run.prepared.config.space.finetune
        if epochs is not None:
            config = config.model_copy(update={"epochs": epochs})
        task = _Task(
            folder=folder,
            study=run.study,
            prepared=run.prepared,
            plan=run.plan,
            at=at,
            config=config,
            baselines=baselines,
            latency=latency or bool(run.study.requested.measured),
        )
        done = _finetuned(task, callbacks)
        run.log.event("artifact", folder=done.artifact.folder, test_opened=done.test_opened)
        return done


def _finetuned(task: _Task, callbacks: Callbacks) -> Finetuned:
    """Cuts and distils a plan, measures it beside what it is compared with, and saves it."""
    require_no_other(task.target, task.config)
    prepared, (budget, at) = task.prepared, task.budget
    cut = built(prepared, task.plan.name, task.plan.mask)
    if task.config.implants is not None:
        require_counted(budget, timed=task.latency)
        cut = implanted(prepared, cut, budget, task.config.implants)
    rival = global_within(prepared, budget, at)
    for item in (cut, rival) if task.baselines else (cut,):
        require_kernels_fit(prepared.subject.discovery, item, task.config)
    compared = [base_of(prepared), plain_within(prepared, budget, at), rival]
    runtimes: list[RuntimeCost] = []
    if task.latency:
        callbacks.on_stage("latency")
        runtimes = [cost_here(task.folder, task.plan)]
    done, distillation = [cut], None
    if task.config.epochs:
        callbacks.on_stage("distillation")
        distilled, distillation = _distilled(task, cut, callbacks)
        done.append(distilled)
        if task.baselines:
            callbacks.on_stage(f"distillation of {rival.name}")
            compared.append(_distilled(task, rival, callbacks)[0])
    callbacks.on_stage("test")
    report = open_ledger(task.folder, prepared.config, prepared.subject)
    networks = measured(
        prepared.subject,
        [*compared, *done],
        lambda item: report.measure(item.name, item.network).score,
    )
    confirmed = RunMeasurer(task.folder, prepared).confirmed(
        done[-1].name,
        done[-1].network,
        None if distillation is None else task.config.settings,
    )
    artifact = save_artifact(
        task.target,
        prepared.config,
        prepared.subject,
        done[-1],
        networks=networks,
        card={
            **from_run(task.folder, task.study),
            "plan": task.plan.name,
            "runtimes": [cost.to_json() for cost in runtimes],
            "certificate": certified(task.folder, task.study, task.plan),
            "confirmed": None if confirmed is None else asdict(confirmed),
            "notes": _notes(task, distillation, report.opened),
            "finetune": task.config.settings,
            **nonzero_json(prepared.subject.discovery, done[-1], task.config),
            "best_epoch": None if distillation is None else distillation.best_epoch,
        },
    )
    for name in (cut.name, rival.name):
        RunFolder(task.folder).progress(name).unlink(missing_ok=True)
    return Finetuned(
        plan=task.plan,
        within=at,
        networks=networks,
        distillation=distillation,
        artifact=artifact,
        confirmed=confirmed,
        test_opened=report.opened,
    )


def require_no_other(target: Path, config: FinetuneConfig) -> None:
    """Refuses to replace an artifact that was trained in another way.

    Raises:
        InputError: it was.
    """
    if not target.exists():
        return
    made = Artifact.open(target).card.get("finetune")
    if made != config.settings:
        raise InputError(
            f"{target}: holds this network fine-tuned with other settings; move it elsewhere first"
        )


def cost_here(folder: Path, plan: NamedNetwork) -> RuntimeCost:
    """Returns what a plan takes here, under the conditions of its run."""
    conditions, (timing,) = time_fresh(folder, [plan.mask], SECONDS)
    return RuntimeCost(conditions=conditions, timing=timing)


def certified(folder: Path, study: Study, plan: NamedNetwork) -> str | None:
    """Returns what a run certified of a plan."""
    certificate = certificate_of(folder, study.requested)
    if certificate is None or certificate.trial is None or certificate.trial != plan.trial:
        return None
    return str(certificate)


def _distilled(
    task: _Task, compared: Compared, callbacks: Callbacks
) -> tuple[Compared, Distillation]:
    """Returns a copy of a network, trained on the base network's outputs, and how that went."""
    subject = task.prepared.subject
    student = student_of(task.prepared, compared, task.config)
    distillation = distil(
        subject.model,
        student.network,
        subject.data.train,
        subject.data.search,
        task.config,
        task.prepared.config.search.seed,
        callbacks.on_epoch,
        task=subject.task,
        progress=RunFolder(task.folder).progress(compared.name),
        discovery=student.discovery,
        goal=student.goal,
    )
    name = finished_name(compared.name, task.config.epochs)
    return replace(compared, name=name, network=student.network), distillation


def _notes(task: _Task, distillation: Distillation | None, opened: int) -> list[str]:
    """Returns what the card says in words."""
    made = [cut_note(task.prepared.evaluator.builder, task.plan.mask), SELECTED]
    if distillation is not None:
        made = [
            "search accuracy is optimistic: the search and the best epoch were selected"
            " on that split",
            f"epoch {distillation.best_epoch} of {task.config.epochs} was the best of the"
            " distillation on the search split, and was kept; 0 is the network before it",
        ]
        if distillation.best.averaged:
            made.append(AVERAGED)
    return [*made, opened_note(opened)]
