"""The finished network of a training under a budget: measured on test once, and saved."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final

from torch import nn

from evosearch.export.artifact import Artifact
from evosearch.export.card import network_from_card
from evosearch.run.compared import Compared
from evosearch.run.config import RunConfig
from evosearch.run.cycles import Cycle
from evosearch.run.folder import RunFolder
from evosearch.run.saving import from_run, save_artifact
from evosearch.run.shrinking import steps_cost
from evosearch.run.subject import Subject
from evosearch.run.testing import open_ledger
from evosearch.run.tolerated import SearchDrop
from evosearch.study.networks import NamedNetwork
from evosearch.study.study import Study
from evosearch.study.trial import Trial


@final
@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of a training under a budget.

    Attributes:
        network: the finished one.
        artifact: the same on disk.
        recipe: how it was trained.
        trainings: from the first step to the last learning rate; more than one by recipes that
            cut between them.
        seconds: that all of it took, with the scoring of channels and epochs.
        image_macs: what its steps cost, forward and backward: images times MACs.
        share: of what one training of the whole network costs in these.
        from_base: whether it began with the base network's weights, whose training is not counted.
        drop: what was lost, where a drop of accuracy was tolerated in place of a budget.
    """

    network: NamedNetwork
    artifact: Artifact
    recipe: str
    trainings: int
    seconds: float
    image_macs: int
    share: float
    from_base: bool
    drop: SearchDrop | None = None


def save_finished(
    folder: Path,
    config: RunConfig,
    subject: Subject,
    study: Study,
    network: nn.Module,
    trial: Trial,
    ended: Cycle,
    best_epoch: int,
) -> Trained:
    """Measures a finished network on test, once, and saves it.

    Args:
        folder: of the run.
        config: of the run.
        subject: the whole network as it was before training, and data.
        study: of the run.
        network: the finished one.
        trial: of it.
        ended: how many trainings there were, and what they cost.
        best_epoch: of the last training, whose weights the network has.
    """
    assert config.prune is not None
    header, recipe, places = study.header, config.prune.recipe, RunFolder(folder)
    report = open_ledger(folder, config, subject)
    plan, epochs = f"trial {trial.number}", config.space.train.epochs
    name = f"{plan}, trained by {recipe}"
    test = report.measure(name, network).score
    named = replace(NamedNetwork.of_trial(trial), name=name, test=test)
    drop = SearchDrop.of(header, trial)
    whole = steps_cost(epochs * len(subject.data.train), header.base_cost)
    artifact = save_artifact(
        places.artifact(plan),
        config,
        subject,
        Compared(name=name, mask=trial.mask, network=network),
        networks=(named,),
        card={
            **from_run(folder, study),
            "plan": plan,
            "training": {
                "prune": config.prune.model_dump(mode="json"),
                "train": config.space.train.model_dump(mode="json"),
                "trainings": ended.number,
                "seconds": ended.seconds,
                "image_macs": ended.image_macs,
                "share": ended.image_macs / whole,
                **({} if drop is None else {"drop": asdict(drop)}),
            },
            "notes": [
                "search accuracy is optimistic: the best epoch was selected on that split",
                _kept(best_epoch, epochs, drop),
                f"the test split was opened {report.opened} times in this run",
            ],
            "best_epoch": best_epoch,
        },
    )
    places.training.unlink(missing_ok=True)
    return _trained(artifact, named)


def load_finished(folder: Path, study: Study) -> Trained | None:
    """Returns what came of a training under a budget; None where it is not finished."""
    if not study.trials:
        return None
    trial, places = study.trials[-1], RunFolder(folder)
    saved = places.artifact(f"trial {trial.number}")
    if not saved.exists():
        return None
    places.training.unlink(missing_ok=True)
    artifact = Artifact.open(saved)
    return _trained(artifact, network_from_card(artifact.card["networks"][-1], trial.mask))


def _trained(artifact: Artifact, network: NamedNetwork) -> Trained:
    training = artifact.card["training"]
    return Trained(
        network=network,
        artifact=artifact,
        recipe=training["prune"]["recipe"],
        trainings=training["trainings"],
        seconds=training["seconds"],
        image_macs=training["image_macs"],
        share=training["share"],
        from_base=training["prune"]["weights"] == "base",
        drop=SearchDrop(**training["drop"]) if "drop" in training else None,
    )


def _kept(epoch: int, epochs: int, drop: SearchDrop | None) -> str:
    if drop is None:
        return (
            f"epoch {epoch} of {epochs} was the best on the search split of those after the last"
            " cut, and was kept"
        )
    return (
        f"epoch {epoch} of {epochs} was kept: the last of the smallest network that had the"
        f" accuracy; it {drop}"
    )
