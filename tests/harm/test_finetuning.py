"""A fine-tuning that is killed goes on from its last epoch, to the same weights."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from evosearch.data import splits as data
from evosearch.data.config import DataConfig
from evosearch.models.weights import weights_digest
from evosearch.models.zoo import digits_resnet
from evosearch.training.base_training import TrainConfig, train_base
from evosearch.training.distillation import FinetuneConfig, distil
from evosearch.training.epochs import Distillation, EpochRecord
from tests.test_cli import QUICK, evosearch

CONFIG = FinetuneConfig(epochs=4, batch_size=32, attention=1.0, optimizer="muon")


class Killed(Exception):
    pass


class Dropping(nn.Module):
    """Draws from torch's own generator, whose state has to come back too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dropout, self.network = nn.Dropout(0.1), digits_resnet(width=width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.network(self.dropout(images))
        return output


@pytest.fixture(scope="module")
def splits() -> tuple[data.TrainSplit, data.SearchSplit]:
    config = DataConfig(name="digits", augment=("crop",), calibration=200, search=350)
    digits = data.load_search_data(config)
    return digits.train.take(torch.arange(192)), digits.search.take(torch.arange(96))


@pytest.fixture(scope="module")
def networks(splits: tuple[data.TrainSplit, data.SearchSplit]) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    teacher, student = Dropping(6), Dropping(4)
    train_base(teacher, splits[0], None, TrainConfig(epochs=3, batch_size=32), 0)
    return teacher, student


class Tuning:
    """Distils copies of one student."""

    def __init__(self, networks: tuple[nn.Module, nn.Module], splits: tuple[object, ...]) -> None:
        self._networks, self._splits = networks, splits
        self.epochs: list[int] = []

    def __call__(
        self, progress: Path | None, kill_at: int | None = None, seed: int = 0
    ) -> tuple[str, Distillation]:
        teacher, student = self._networks[0], copy.deepcopy(self._networks[1])

        def on_epoch(record: EpochRecord) -> None:
            self.epochs.append(record.epoch)
            if record.epoch == kill_at:
                raise Killed

        outcome = distil(
            teacher, student, *self._splits, CONFIG, seed, on_epoch, progress=progress
        )
        return weights_digest(student), outcome


@pytest.fixture
def tuning(networks: tuple[nn.Module, nn.Module], splits: tuple[object, ...]) -> Tuning:
    return Tuning(networks, splits)


@pytest.mark.parametrize("kills", [[1], [2], [4], [2, 4], [3, 3]])
def test_a_cut_distillation_ends_as_an_uncut_one(
    kills: list[int], tuning: Tuning, tmp_path: Path
) -> None:
    whole, history = tuning(None)
    progress = tmp_path / "progress"
    for epoch in kills:
        with pytest.raises(Killed):
            tuning(progress, kill_at=epoch)
    tuning.epochs.clear()
    again, resumed = tuning(progress)
    assert again == whole
    assert resumed.best_epoch == history.best_epoch
    assert [(r.train_loss, r.search) for r in resumed.history] == [
        (r.train_loss, r.search) for r in history.history
    ]
    # The killed epoch had not been saved yet: it is the first that is trained again.
    assert tuning.epochs == list(range(kills[-1] if kills[-1] > 1 else 0, CONFIG.epochs + 1))
    tuning.epochs.clear()
    assert tuning(progress)[0] == whole
    assert tuning.epochs == []


def test_the_progress_of_another_training_or_a_torn_one_is_not_taken(
    tuning: Tuning, tmp_path: Path
) -> None:
    progress = tmp_path / "progress"
    with pytest.raises(Killed):
        tuning(progress, kill_at=3)
    other, _ = tuning(None, seed=1)
    assert tuning(progress, seed=1)[0] == other
    progress.write_bytes(progress.read_bytes()[:-100])
    assert tuning(progress)[0] == tuning(None)[0]


SETTINGS = {
    "plain": "",
    "penalties": "penalties = { group_lasso = 1e-4, orthogonality = 1e-3 }",
    "orepa": 'kernels = "orepa"',
    "2:4": 'kernels = "2:4"\n[groups]\nmultiple_of = 4',
    "zeros": 'kernels = "zeros"',
    "pace": 'pace = "one_cycle"',
    "implants": "implants = 0.5",
}
"""What stands in `[finetune]`, and behind it."""
SEARCH = ("search", "quick.toml", "--flops", "15%..25%", "--strategy", "random", "--trials", "2")
TRAIN = ("train", "quick.toml", "--flops", "25%")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "begin"),
    [*((name, SEARCH) for name in SETTINGS), ("plain", TRAIN)],
)
def test_a_killed_finetune_gives_the_weights_of_one_that_was_not(
    settings: str, begin: tuple[str, ...], tmp_path: Path
) -> None:
    quick = QUICK.replace("epochs = 1", "epochs = 12") + SETTINGS[settings]
    (tmp_path / "quick.toml").write_text(quick)
    finetune = ("finetune", "run", "--pick", "smallest")
    for place in (tmp_path / "whole", tmp_path / "killed"):
        place.mkdir()
        (place / "quick.toml").write_text((tmp_path / "quick.toml").read_text())
        done = evosearch(*begin, "--out", "run", cwd=place)
        assert done.returncode == 0, done.stderr
    assert evosearch(*finetune, cwd=tmp_path / "whole").returncode == 0

    place = tmp_path / "killed"
    environment = {**os.environ, "EVOSEARCH_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    for _ in range(3):
        command = [sys.executable, "-m", "evosearch.cli", *finetune]
        process = subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.DEVNULL)
        before = states(place)
        while process.poll() is None and states(place) == before:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = evosearch(*finetune, cwd=place)
    assert done.returncode == 0, done.stderr
    # Of a training under a budget the finished network, and the one that was taken further.
    weights = [
        [f.read_bytes() for f in sorted(p.glob("run/artifacts/*/weights.safetensors"))]
        for p in (tmp_path / "whole", place)
    ]
    assert weights[0] == weights[1]
    assert len(weights[0]) == (1 if begin is SEARCH else 2)
    assert not states(place)


def states(place: Path) -> list[tuple[str, int]]:
    """Returns the whole checkpoints; a kill in the middle of a write leaves a hidden part."""
    whole = [path for path in place.glob("run/*.progress") if not path.name.startswith(".")]
    return [(path.name, path.stat().st_mtime_ns) for path in whole]
