"""A run's network that was trained elsewhere: found to be the plan's, measured on test, saved."""

from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from evosearch.errors import InputError
from evosearch.export.artifact import Artifact
from evosearch.models.copying import copied
from evosearch.models.weights import tensors_of
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
from evosearch.run.cutting import plan_of
from evosearch.run.finetuning import Finetuned, certified
from evosearch.run.folder import RunFolder
from evosearch.run.measurer import RunMeasurer
from evosearch.run.picking import picked
from evosearch.run.saving import SELECTED, from_run, opened_note, save_artifact
from evosearch.run.testing import open_ledger


def finish(
    folder: Path,
    network: nn.Module,
    *,
    pick: str | None = None,
    at: str | None = None,
    name: str,
    callbacks: Callbacks = SILENT,
) -> Finetuned:
    """Measures a network on confirmation and test images, once, and saves its artifact.

    Args:
        folder: of the run.
        network: of one of its plans, with other weights; it stays as it is.
        pick: the plan, where the network does not say it; see `planning.pick_plan`.
        at: likewise, by a budget; see `picking.picked`.
        name: what its training is called.
        callbacks: told what is being done.

    Raises:
        InputError: no such run or plan, or the network is not of it.
    """
    own = plan_of(network)
    if pick is None and at is None:
        if own is None:
            raise InputError(
                "the network does not say which plan of the run it is: name it, as in"
                ' run.finish(network, at="flops=37%"), with what run.network was given'
            )
        pick = own
    if not isinstance(name, str) or not name or not name.isprintable() or "/" in name:
        raise InputError(f"name = {name!r}: expected a few words, which name a folder as well")
    with picked(folder, pick=pick, at=at, callbacks=callbacks) as run:
        prepared, plan = run.prepared, run.plan
        if own is not None and own != plan.name:
            raise InputError(f"the network is {own} of its run, and {at or pick} is {plan.name}")
        callbacks.on_stage("compact network")
        cut = built(prepared, plan.name, plan.mask)
        _require_same_tensors(network, cut)
        title = f"{plan.name}, {name}"
        place = _place(folder, title, name)
        run.log.event("finish", plan=plan.name, training=name)
        trained = copied(network).to(prepared.config.search.device).eval()
        done = replace(cut, name=title, network=trained)
        budget, within = compared_budget(run.study, prepared, plan, at)
        compared = [
            base_of(prepared),
            plain_within(prepared, budget, within),
            global_within(prepared, budget, within),
            cut,
            done,
        ]
        callbacks.on_stage("test")
        report = open_ledger(folder, prepared.config, prepared.subject)
        networks = measured(
            prepared.subject,
            compared,
            lambda item: report.measure(item.name, item.network).score,
        )
        training = {"training": name}
        confirmed = RunMeasurer(folder, prepared).confirmed(title, done.network, training)
        callbacks.on_stage("artifact, and its check")
        artifact = save_artifact(
            place,
            prepared.config,
            prepared.subject,
            done,
            networks=networks,
            card={
                **from_run(folder, run.study),
                "plan": title,
                "certificate": certified(folder, run.study, plan),
                "confirmed": None if confirmed is None else asdict(confirmed),
                "notes": [
                    f"{name}: it was trained by another program, so that it is not known whether"
                    " on images of the search or the confirmation split",
                    SELECTED,
                    opened_note(report.opened),
                ],
            },
        )
        run.log.event("artifact", folder=artifact.folder, test_opened=report.opened)
    return Finetuned(
        plan=plan,
        within=within,
        networks=networks,
        distillation=None,
        artifact=artifact,
        confirmed=confirmed,
        test_opened=report.opened,
    )


def _place(folder: Path, title: str, name: str) -> Path:
    """Returns the folder of an artifact.

    Raises:
        InputError: a training of another name has it.
    """
    place = RunFolder(folder).artifact(title)
    held = Artifact.open(place).card.get("plan") if place.exists() else title
    if held != title:
        raise InputError(f"name = {name!r} names the folder of {held}; give another name")
    return place


def _require_same_tensors(network: nn.Module, cut: Compared) -> None:
    """Checks that a network has the tensors of a plan's, by name, shape and type.

    Raises:
        InputError: it has others; names the first.
    """
    found, expected = (
        {name: f"{tuple(t.shape)} {t.dtype}".replace("torch.", "") for name, t in own.items()}
        for own in (tensors_of(network), tensors_of(cut.network))
    )
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            raise InputError(
                f"the network is not {cut.name} of this run: {name} is"
                f" {found.get(name, 'not there')}, expected {expected.get(name, 'none')}; give"
                " what run.network returned, trained, without wrappers or parametrizations"
            )
