"""Trainings one after the other: what each begins with, and where they end."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evosearch
from evosearch.criteria.learned import MSEB
from evosearch.criteria.scored_network import ScoredNetwork
from evosearch.models.build import build_model
from evosearch.models.weights import load_weights
from evosearch.run import course as course_module
from evosearch.run.callbacks import Callbacks
from evosearch.run.config import read_run_config
from evosearch.run.cycles import Cycle, next_budget
from evosearch.run.finished import Trained
from evosearch.run.folder import RunFolder
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.mask import Mask
from evosearch.space.text import load_space
from evosearch.study.study import Study
from evosearch.surgery.compaction import compact
from evosearch.surgery.gating import gates_of
from evosearch.training.epochs import EpochRecord
from evosearch.training.trainer import Training
from tests.run.test_training import SPACE, Stopped, _quick, weights  # noqa: F401  (a fixture)
from tests.toys import comparable


def costing(macs: int) -> Cost:
    return Cost(macs=macs, params=1, activations=1)


@pytest.mark.parametrize(
    ("cost", "expected"), [(1000, 800), (800, 640), (790, 640), (330, 328), (320, 300)]
)
def test_a_cycle_takes_a_fifth_of_what_is_left(cost: int, expected: int) -> None:
    """1000, 800, 640, 512, 409.6, 327.68, and then the budget itself."""
    budget = Budget.exactly(macs=300)
    found = next_budget(costing(cost), costing(1000), budget, 0.2)
    assert found == Budget.exactly(macs=expected)


def test_a_cycle_that_takes_all_goes_to_the_budget() -> None:
    budget = Budget.exactly(macs=300)
    assert next_budget(costing(1000), costing(1000), budget, 1.0) == budget


def test_a_cycle_goes_through_json() -> None:
    mask = Mask({"a": torch.tensor([True, False, True]).numpy()})
    cycle = Cycle(number=2, mask=mask, image_macs=10**12, seconds=1.5)
    assert Cycle.from_json(cycle.to_json(), {"a": 3}) == cycle


class Beginnings:
    """Notes the weights that each training begins with, and those that it ends with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.first: list[dict[str, torch.Tensor]] = []
        self.last: list[dict[str, torch.Tensor]] = []
        self.networks: list[nn.Module] = []
        real = course_module.Course._train

        def noting(own: course_module.Course, network: nn.Module, *rest: object) -> object:
            self.networks.append(network)
            self.first.append({n: t.clone() for n, t in network.state_dict().items()})
            result = real(own, network, *rest)
            self.last.append({n: t.clone() for n, t in network.state_dict().items()})
            return result

        monkeypatch.setattr(course_module.Course, "_train", noting)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, right[name]) for name, tensor in left.items())


@pytest.mark.parametrize("rewind", ["start", "fresh", "keep"])
def test_what_a_training_begins_with(
    rewind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = Beginnings(monkeypatch)
    section = f'[prune]\nrecipe = "imp"\ndrop = 0.5\nrewind = "{rewind}"\n'
    (tmp_path / "space.toml").write_text(SPACE.format(epochs=1) + section)
    run = evosearch.train(tmp_path / "space.toml", flops="25%", out=tmp_path / "run")
    assert isinstance(run, evosearch.Run)
    trials, base = run.study.trials, run.study.header.base_cost
    assert len(trials) == len(noted.first) == 3
    assert [trial.cost.macs <= base.macs * 0.5**n for n, trial in enumerate(trials)] == [True] * 3
    assert isinstance(run.ended, Trained)
    assert run.ended.trainings == 3
    expected = sum(trial.cost.macs for trial in trials) / base.macs
    assert run.ended.share == pytest.approx(expected)

    whole = build_model(read_run_config(tmp_path / "run").space.model)
    load_weights(whole, RunFolder(tmp_path / "run").base)
    groups = load_space(RunFolder(tmp_path / "run").space).groups
    for number, trial in enumerate(trials):
        start = compact(whole, groups, trial.mask).state_dict()
        assert same(noted.first[number], start) == (number == 0 or rewind == "start")
    ended = noted.last[0]
    kept = noted.first[1]["linear.bias"]
    assert torch.equal(kept, ended["linear.bias"]) == (rewind == "keep")


def test_gates_train_with_the_whole_network_and_not_with_the_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Channels go by the gates of the best epoch, and nothing else of that training is kept."""
    noted, scored = Beginnings(monkeypatch), []
    real = MSEB.factors

    def noting(own: MSEB, network: ScoredNetwork, *rest: Any) -> dict[str, torch.Tensor]:
        assert gates_of(network.model) is not None
        found = real(own, network, *rest)
        scored.append({group: factors.mean(0).numpy() for group, factors in found.items()})
        return found

    monkeypatch.setattr(MSEB, "factors", noting)
    (tmp_path / "space.toml").write_text(SPACE.format(epochs=1))
    run = evosearch.train(tmp_path / "space.toml", flops="25%", recipe="ucp", out=tmp_path / "run")
    assert isinstance(run, evosearch.Run)
    whole, small = run.study.trials
    assert [whole.mask, small.cost.macs <= run.study.header.base_cost.macs / 4] == [
        load_space(RunFolder(tmp_path / "run").space).full_mask(),
        True,
    ]
    trained, fresh = noted.first
    assert any("learned_gates" in name for name in noted.last[0])
    assert not any("learned_gates" in name for name in (*trained, *fresh))
    assert not torch.equal(fresh["linear.bias"], noted.last[0]["linear.bias"])
    (gates,) = scored
    for group, bits in small.mask.items():
        assert gates[group][bits].min() >= gates[group][~bits].max()


def test_an_epoch_is_gone_back_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To its weights at the channels that stay, and its learning rate; no step before counts."""
    noted, rates, seen = Beginnings(monkeypatch), [], []
    real = course_module.Training

    def noting(*arguments: Any, **options: Any) -> Training:
        training = real(*arguments, **options)
        rates.append(training._optimizers[0].param_groups[0]["lr"])
        return training

    monkeypatch.setattr(course_module, "Training", noting)
    after: list[dict[str, torch.Tensor]] = []

    def on_epoch(record: EpochRecord) -> None:
        seen.append(record.epoch)
        if len(seen) == 2:  # the first training, after its first epoch
            after.append({n: t.clone() for n, t in noted.networks[0].state_dict().items()})

    section = '[prune]\nrecipe = "imp"\ndrop = 0.5\nrewind = 1\n'
    (tmp_path / "space.toml").write_text(SPACE.format(epochs=3) + section)
    run = evosearch.train(
        tmp_path / "space.toml",
        flops="50%",
        out=tmp_path / "run",
        callbacks=Callbacks(on_epoch=on_epoch),
    )
    assert isinstance(run, evosearch.Run)
    assert seen == [0, 1, 2, 3, 1, 2, 3]
    # Half a cosine of three epochs: (1 + cos(pi / 3)) / 2 = 0.75 after one.
    assert rates == pytest.approx([0.1, 0.075])
    first, second = run.study.trials
    whole = build_model(read_run_config(tmp_path / "run").space.model)
    whole.load_state_dict(after[0])
    groups = load_space(RunFolder(tmp_path / "run").space).groups
    assert same(noted.first[1], compact(whole, groups, second.mask).state_dict())
    load_weights(whole, RunFolder(tmp_path / "run").base)
    assert not same(noted.first[1], compact(whole, groups, second.mask).state_dict())
    assert isinstance(run.ended, Trained)
    expected = 1 + 2 / 3 * second.cost.macs / first.cost.macs
    assert run.ended.share == pytest.approx(expected)


@pytest.mark.slow
def test_gates_are_not_gone_back_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Beginnings(monkeypatch)
    section = '[prune]\nrecipe = "ucp"\nrewind = 1\n'
    (tmp_path / "space.toml").write_text(SPACE.format(epochs=2) + section)
    run = evosearch.train(tmp_path / "space.toml", flops="25%", out=tmp_path / "run")
    assert isinstance(run, evosearch.Run)
    assert len(run.study.trials) == 2
    assert any("learned_gates" in name for name in noted.last[0])
    assert not any("learned_gates" in name for name in (*noted.first[1], *noted.last[1]))


@pytest.mark.parametrize("rewind", ['"start"', pytest.param("1", marks=pytest.mark.slow)])
def test_one_that_was_stopped_in_a_later_cycle_goes_on_there(rewind: str, tmp_path: Path) -> None:
    section = f"[prune]\ndrop = 0.5\nrewind = {rewind}\n"
    first = 0 if rewind == '"start"' else 1
    last = first + 2
    (tmp_path / "space.toml").write_text(SPACE.format(epochs=last) + section)
    training = [*range(first, last + 1)]
    train = {"flops": "25%", "recipe": "dropnet"}
    expected = evosearch.train(tmp_path / "space.toml", out=tmp_path / "whole", **train)
    seen = []

    def on_epoch(record: EpochRecord) -> None:
        seen.append(record.epoch)
        if seen == [*range(last + 1), *training]:
            raise Stopped

    with pytest.raises(Stopped):
        evosearch.train(
            tmp_path / "space.toml",
            out=tmp_path / "stopped",
            callbacks=Callbacks(on_epoch=on_epoch),
            **train,
        )
    assert len(Study.open(tmp_path / "stopped").trials) == 1
    seen.clear()
    done = evosearch.resume(tmp_path / "stopped", callbacks=Callbacks(on_epoch=on_epoch))
    assert seen == [last, *training]
    assert isinstance(expected, evosearch.Run)
    assert comparable(done.study.trials) == comparable(expected.study.trials)
    assert weights(tmp_path, "stopped") == weights(tmp_path, "whole")
    assert isinstance(done.ended, Trained)
    assert isinstance(expected.ended, Trained)
    assert done.ended.image_macs == expected.ended.image_macs
