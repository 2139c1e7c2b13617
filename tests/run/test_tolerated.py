"""A training under a tolerated drop shrinks while there is room, and ends within the drop."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import evosearch
from evosearch.api.training import TrainedBase
from evosearch.cli.training import conclude_training
from evosearch.export.artifact import Artifact
from evosearch.models.build import build_model
from evosearch.run.callbacks import Callbacks
from evosearch.run.finished import Trained
from evosearch.run.folder import RunFolder
from evosearch.run.spacefile import load_space_file
from evosearch.run.subject import load_search_data
from evosearch.run.tolerated import SearchDrop
from evosearch.space.budget import Budget
from evosearch.training.epochs import EpochRecord
from tests.run.test_shrinking import SPACE as DIGITS
from tests.run.test_shrinking import Watched
from tests.run.test_training import SPACE, Stopped, _quick, weights  # noqa: F401  (a fixture)
from tests.toys import comparable

SMALLEST = Budget.exactly(macs=DIGITS.smallest_cost.macs)
BASE = DIGITS.base_cost.macs


def followed(accuracies: Sequence[float], **settings: Any) -> Watched:
    """A network trained for an epoch after each of these accuracies, which may lose a point."""
    watched = Watched("play_and_prune", SMALLEST, every="epoch", drop=1.0, **settings)
    epochs = watched.training.epochs()
    for accuracy in accuracies:
        watched.shrinking.scored(accuracy)
        next(epochs)
    return watched


def in_force(watched: Watched) -> list[float]:
    return [budget.bounds["macs"].high / BASE for _, budget in watched.cuts]


def test_half_of_the_tolerance_left_takes_a_quarter() -> None:
    """And all of it the half of that: 0.75, and 0.375 of the whole network."""
    watched = followed([0.9, 0.895, 0.89, 0.95, 0.88])
    assert in_force(watched) == pytest.approx([0.75, 0.375], abs=1e-5)
    assert [t for _, _, t in watched.left] == [1 / 8, 3 / 8]
    assert [DIGITS.cost(watched.mask)] == [watched.cuts[-1][0]]
    assert DIGITS.cost(watched.mask).macs <= 0.375 * BASE
    assert watched.shrinking.may_finish


def test_without_tolerance_nothing_goes() -> None:
    assert followed([0.9, 0.89, 0.80, 0.89]).cuts == []


def test_it_stops_at_the_smallest_network() -> None:
    watched = followed([0.9] * 8, pace={"name": "slack", "delta": 0.9})
    assert watched.mask.widths == dict(
        zip(DIGITS.sizes, DIGITS.least_widths.tolist(), strict=True)
    )


def test_the_tolerance_eases_the_pull_on_the_weakest_and_no_other() -> None:
    def term(accuracy: float, name: str) -> float:
        watched = Watched(
            "play_and_prune", SMALLEST, every="epoch", drop=1.0, penalties={name: 1.0}
        )
        for seen in (0.9, accuracy):
            watched.shrinking.scored(seen)
        penalized = watched.training._parts[1]
        penalized.after_cut()
        found = penalized.term()
        assert found is not None
        return found.item()

    whole = term(0.9, "lowest_l1")
    assert whole > 0
    assert term(0.8925, "lowest_l1") == pytest.approx(0.25 * whole)
    assert term(0.89, "lowest_l1") == 0
    assert term(0.89, "orthogonality") == term(0.9, "orthogonality") > 0


def test_the_record_goes_through_a_checkpoint() -> None:
    """Two accuracies before it, two after: the steps multiply across it."""
    accuracies = [0.9, 0.896, 0.894, 0.9]
    unstopped, stopped = followed(accuracies), followed(accuracies[:2])
    state: Mapping[str, Any] = stopped.training.state()
    resumed = Watched("play_and_prune", SMALLEST, every="epoch", drop=1.0)
    resumed.training.restore(state)
    epochs = resumed.training.epochs()
    for accuracy in accuracies[2:]:
        resumed.shrinking.scored(accuracy)
        next(epochs)
    assert resumed.mask == unstopped.mask
    assert in_force(stopped) + in_force(resumed) == in_force(unstopped)
    assert len(in_force(unstopped)) == 3
    for own, other in zip(
        resumed.model.state_dict().values(), unstopped.model.state_dict().values(), strict=True
    ):
        assert torch.equal(own, other)


def test_what_was_lost_says_on_what_and_that_it_is_no_certificate() -> None:
    lost = SearchDrop(tolerated=1.0, lost=0.571, images=350, metric="accuracy")
    assert str(lost) == (
        "loses 0.57 points of accuracy (at most 1 may be lost) on the 350 search images, which"
        " also decided what was kept: optimistic, and not certified"
    )
    gained = SearchDrop(tolerated=1.0, lost=-0.29, images=350, metric="recall")
    assert str(gained).startswith("gains 0.29 points of recall")


EPOCHS = 6
DROP = 12.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space with the weights of a base network that was trained for some epochs."""
    folder = tmp_path_factory.mktemp("tolerated")
    (folder / "base.toml").write_text(SPACE.format(epochs=EPOCHS))
    base = evosearch.train(folder / "base.toml")
    assert isinstance(base, TrainedBase)
    shutil.copy(base.weights, folder / "base.safetensors")
    own = '[model]\nweights = "base.safetensors"'
    text = SPACE.format(epochs=EPOCHS).replace("[model]", own)
    (folder / "space.toml").write_text(text)
    impatient = '[prune]\npace = { name = "slack", patience = 1, delta = 0.95 }\n'
    (folder / "patience.toml").write_text(text + impatient)
    return folder


def trained(
    place: Path,
    name: str,
    on_epoch: Callable[[EpochRecord], None] = lambda _: None,
    space: str = "space.toml",
) -> evosearch.Run:
    if (place / name).exists():
        return evosearch.resume(place / name)
    out = evosearch.train(
        place / space,
        accuracy_drop=DROP,
        recipe="play_and_prune",
        out=place / name,
        callbacks=Callbacks(on_epoch=on_epoch),
    )
    assert isinstance(out, evosearch.Run)
    return out


def accuracy_of(artifact: Artifact, place: Path) -> float:
    """Returns the search accuracy of what was saved."""
    space = load_space_file(place / "space.toml")
    network = artifact.load(lambda: build_model(space.model, place))
    data = load_search_data(space.data, place)
    with torch.inference_mode():
        answers = network(data.search.images[:]).argmax(1)
    return (answers == data.search.labels).double().mean().item()


def test_it_ends_in_the_smallest_network_that_kept_the_accuracy(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[EpochRecord] = []
    run = trained(place, "whole", seen.append)
    study, ended = run.study, run.ended
    assert isinstance(ended, Trained)
    base, trials = study.header.base, study.trials
    assert base.name == "base"
    least = base.search.accuracy - DROP / 100
    assert study.budget.least_accuracy == pytest.approx(least)
    assert seen[0].search == base.search
    assert len(trials) > 1
    assert all(trial.violation(study.budget) == 0 for trial in trials)
    assert [t.cost.macs for t in trials] == sorted((t.cost.macs for t in trials), reverse=True)
    assert trials[-1].cost.macs < study.header.base_cost.macs
    accuracy = accuracy_of(ended.artifact, place)
    assert accuracy == pytest.approx(ended.network.search.accuracy)
    assert accuracy >= least
    assert ended.network.mask == trials[-1].mask
    assert ended.drop == SearchDrop(
        tolerated=DROP,
        lost=100 * (base.search.accuracy - accuracy),
        images=350,
        metric="accuracy",
    )
    notes = " ".join(ended.artifact.card["notes"])
    assert str(ended.drop) in notes
    conclude_training(run)
    printed = " ".join(capsys.readouterr().out.split())
    assert str(ended.drop) in printed
    assert (place / "whole" / "certificates.json").exists() is False


@pytest.mark.parametrize("epoch", [3, pytest.param(EPOCHS, marks=pytest.mark.slow)])
def test_what_was_stopped_goes_on_to_the_same_end(place: Path, epoch: int) -> None:
    expected, name = trained(place, "whole"), f"stopped at {epoch}"

    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise Stopped

    with pytest.raises(Stopped):
        trained(place, name, on_epoch)
    done = evosearch.resume(place / name)
    assert comparable(done.study.trials) == comparable(expected.study.trials)
    assert weights(place, name) == weights(place, "whole")
    assert not RunFolder(place / name).training.exists()


def test_patience_ends_it_early(place: Path) -> None:
    """In the network before the cut that did not keep the accuracy, as it was left."""
    seen: list[EpochRecord] = []
    run = trained(place, "impatient", seen.append, "patience.toml")
    assert 0 < seen[-1].epoch < EPOCHS
    assert isinstance(run.ended, Trained)
    assert run.ended.drop is not None
    assert run.ended.drop.lost <= DROP
    log, kept = RunFolder(place / "impatient").log.read_text(), run.study.trials[-1]
    assert int(log.rpartition("cut macs=")[2].split()[0]) < kept.cost.macs
    assert run.ended.network.mask == kept.mask
    accuracy = accuracy_of(run.ended.artifact, place)
    assert accuracy == pytest.approx(kept.evaluation.score.accuracy)
