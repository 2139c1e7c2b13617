"""The finals of a run: its best plans near a budget, side by side, and the last one shipped."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from evosearch.errors import InputError
from evosearch.export.artifact import Artifact
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.run.compared import Compared, built, global_within
from evosearch.run.config import read_run_config
from evosearch.run.contest import Contest, forecast, train_side_by_side
from evosearch.run.finalists import CONTROL, budget_of_finals, choose_finalists
from evosearch.run.finetuning import certified, require_no_other
from evosearch.run.measurer import RunMeasurer
from evosearch.run.planning import measure_decoded
from evosearch.run.reopening import held, reopen
from evosearch.run.saving import AVERAGED, from_run, save_artifact
from evosearch.run.students import nonzero_json, require_kernels_fit
from evosearch.run.testing import open_ledger
from evosearch.study.finals import RECORD, Finalist, Finals, finished_name
from evosearch.study.halving import halving
from evosearch.study.study import Study
from evosearch.training.epochs import Distillation


@final
@dataclass(frozen=True, kw_only=True)
class Decided:
    """Finals, and the network that they ended with.

    Attributes:
        study: of the run.
        finals: what came of them.
        artifact: the winner on disk.
    """

    study: Study
    finals: Finals
    artifact: Artifact

    def __repr__(self) -> str:
        return f"Decided({self.finals.network}, {self.artifact})"


def run_finals(
    folder: Path,
    *,
    count: int,
    at: str | None = None,
    epochs: int | None = None,
    callbacks: Callbacks = SILENT,
) -> Decided:
    """Trains the best plans of a run side by side, and ships the last one.

    Rounds are those of `halving`. Every finalist follows the schedule of the whole training, on
    the same images in the same order; those that are left behind stop early, so the winner is
    what `finetune` makes of its plan. After a round, those of least loss on the search split go
    on. The global plan without a search does in any case: of the two that are trained to the end
    one is searched and the other not, and that of lesser loss is shipped.

    What a kill cuts short goes on from the last epoch of each finalist when it is called again.

    Args:
        folder: of the run.
        count: of the finalists, with the plan without a search.
        at: a budget such as "flops=50%"; None is the upper end of the run's.
        epochs: of the whole training; takes the place of the space's.
        callbacks: told what is being done, what all of it costs, and how each training goes.

    Raises:
        InputError: no such run, too few plans near the budget, or too few epochs.
    """
    study = Study.open(folder)
    budget, words = budget_of_finals(folder, study, at)
    config = read_run_config(folder).space.finetune
    if epochs is not None:
        config = config.model_copy(update={"epochs": epochs})
    halving(count, config.epochs)  # refuses too few before anything is opened
    if config.pace is not None or config.implants is not None:
        raise InputError(
            "[finetune] pace and implants: finals compare networks that have their channels from"
            " the first step on: leave them out"
        )
    with held(folder) as log:
        prepared = reopen(folder, study.header, callbacks.on_stage)
        callbacks.on_stage("search split")
        measure_decoded(folder, study, budget, prepared.evaluator.evaluate)
        control = global_within(prepared, budget, words)
        contest = Contest(
            folder=folder,
            study=study,
            prepared=prepared,
            at=words,
            config=config,
            plans=choose_finalists(folder, study, prepared, budget, words, control, count),
        )
        log.event("finals", at=words, networks=count, epochs=config.epochs)
        if not _is_over(contest):
            _decide(contest, control, callbacks)
        finals = Finals.load(contest.place, study.header.sizes)
        for left in contest.place.iterdir():  # checkpoints, whole ones and those that a kill tore
            if left.name != RECORD:
                left.unlink()
        artifact = Artifact.open(contest.target(finals.winner))
        log.event("artifact", folder=artifact.folder)
        return Decided(study=study, finals=finals, artifact=artifact)


def _is_over(contest: Contest) -> bool:
    """Returns whether finals were decided, and their winner is still there."""
    if not (contest.place / RECORD).exists():
        return False
    finals = Finals.load(contest.place, contest.study.header.sizes)
    return contest.target(finals.winner).exists()


def _decide(contest: Contest, control: Compared, callbacks: Callbacks) -> None:
    """Trains finalists round by round, and confirms, tests and saves the last.

    The record comes last: without it, what a kill cut short is done again from the checkpoints.
    """
    for index in range(len(contest.plans)):
        require_no_other(contest.target(index), contest.config)
    prepared, config = contest.prepared, contest.config
    callbacks.on_stage("compact networks")
    untrained = [control, *(built(prepared, p.name, p.mask) for p in contest.plans[1:])]
    for item in untrained:
        require_kernels_fit(prepared.subject.discovery, item, config)
    callbacks.on_stage("what the finals cost")
    callbacks.on_note(forecast(contest, control.network))
    contest.place.mkdir(parents=True, exist_ok=True)
    trained, ended = train_side_by_side(contest, untrained, callbacks)
    rival = next(index for index in trained if index != CONTROL)
    winner = min(sorted(trained), key=lambda index: _least_loss(ended[index]))
    callbacks.on_stage("confirmation split")
    measurer = RunMeasurer(contest.folder, prepared)
    gain = measurer.gain(trained[rival], trained[CONTROL])
    name = finished_name(contest.plans[winner].name, config.epochs)
    confirmed = measurer.confirmed(name, trained[winner], config.settings)
    callbacks.on_stage("test")
    report = open_ledger(contest.folder, prepared.config, prepared.subject)
    finalists = tuple(
        Finalist(
            plan=plan,
            history=tuple(record.search for record in how.history if record.search is not None),
            best_epoch=how.best_epoch,
        )
        for plan, how in zip(contest.plans, ended, strict=True)
    )
    finals = Finals(
        at=contest.at,
        epochs=config.epochs,
        finalists=finalists,
        rival=rival,
        winner=winner,
        test=report.measure(name, trained[winner]).score,
        gain=gain,
        confirmed=confirmed,
        image_macs=sum(contest.image_macs(own.epochs, own.plan.cost) for own in finalists),
    )
    shipped = Compared(name=name, mask=contest.plans[winner].mask, network=trained[winner])
    _save(contest, finals, shipped, ended[winner], report.opened)
    finals.save(contest.place)


def _least_loss(training: Distillation) -> float:
    score = training.best.search
    assert score is not None
    return score.loss


def _save(
    contest: Contest, finals: Finals, shipped: Compared, training: Distillation, opened: int
) -> None:
    """Writes the artifact of the winner."""
    config, confirmed = contest.config, finals.confirmed
    names = ", ".join(own.plan.name for own in finals.finalists)
    save_artifact(
        contest.target(finals.winner),
        contest.prepared.config,
        contest.prepared.subject,
        shipped,
        networks=(finals.network,),
        card={
            **from_run(contest.folder, contest.study),
            "plan": contest.plans[finals.winner].name,
            "certificate": certified(contest.folder, contest.study, contest.plans[finals.winner]),
            "confirmed": None if confirmed is None else asdict(confirmed),
            "notes": [
                "search accuracy is optimistic: the search, the finals and the best epoch were"
                " selected on that split",
                f"the winner of finals at {finals.at}, of {len(finals.finalists)} networks:"
                f" {names}",
                *([] if finals.gain is None else [_gain_note(finals)]),
                f"epoch {training.best_epoch} of {config.epochs} was its best on the search"
                " split, and was kept",
                *([AVERAGED] if training.best.averaged else []),
                f"the test split was opened {opened} times in this run",
            ],
            "finetune": config.settings,
            **nonzero_json(contest.prepared.subject.discovery, shipped, config),
            "best_epoch": training.best_epoch,
        },
    )


def _gain_note(finals: Finals) -> str:
    rival, control = (finals.finalists[i].plan.name for i in (finals.rival, CONTROL))
    return f"{rival} against {control}, after the same training: {finals.gain}"
