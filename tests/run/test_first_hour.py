"""The first hour with networks of one's own: searched, fine-tuned, exported, loaded elsewhere."""

from pathlib import Path

import pytest
import torch

import evosearch
from evosearch.export.rebuild import rebuild
from tests.run import ownnetworks
from tests.run.ownspaces import IMAGES, NAMES, write_space


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["rates", "genetic"])
@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_ones_own(name: str, strategy: str, tmp_path: Path) -> None:
    space = write_space(tmp_path, name)
    run = evosearch.search(
        space, flops="30%..70%", strategy=strategy, trials=12, out=tmp_path / "run"
    )
    trials = run.study.trials
    assert len(trials) == 12
    assert [trial.error for trial in trials if trial.error is not None] == []
    done = evosearch.finetune(run.folder, at="flops=50%")
    assert done.networks[-1].cost.macs <= 0.5 * done.networks[0].cost.macs
    evosearch.export_artifact(done.artifact.folder, to=tmp_path / "copy")
    network = done.artifact.load(getattr(ownnetworks, name)).eval()
    rebuilt = rebuild(getattr(ownnetworks, name)(), tmp_path / "copy").eval()
    torch.testing.assert_close(rebuilt(IMAGES), network(IMAGES))
    exported = evosearch.export_artifact(
        done.artifact.folder, to=tmp_path / "net.pt2", format="pt2", space=space
    )
    assert exported.difference is not None
    assert exported.difference < 1e-4
