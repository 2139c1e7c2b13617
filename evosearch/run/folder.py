"""The folder of a run, and the name of every file in it; imported without torch.

Whoever writes or reads a file of a run asks here where it lies. Files that a lower package knows
by itself (the study, the scores, the certificate) have their names from there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from evosearch.study.certificate import CERTIFICATES
from evosearch.study.rungtimes import RUNG_TIMES
from evosearch.study.scorestore import SCORES
from evosearch.study.study import STUDY_FILE


@final
class _Place:
    """A file or folder in the folder of a run."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "RunFolder", _owner: type) -> Path:
        return folder.path / self._name


@final
@dataclass(frozen=True)
class RunFolder:
    """Where everything of a run lies.

    Attributes:
        path: of the folder.
    """

    path: Path

    config = _Place("config.toml")
    """What was asked for, every default in it."""
    space = _Place("space.toml")
    """What is searched."""
    proof = _Place("proof.json")
    """What the proof of each group measured."""
    images = _Place("images.json")
    """The images of every split, which make it plain what became of them; derived."""
    base = _Place("base.safetensors")
    """Weights of the base network."""
    elastic = _Place("elastic.safetensors")
    """Weights whose changes candidates take over, where the search has such."""
    knowledge = _Place("knowledge.npz")
    """What strategies read; derived."""
    rungs = _Place(RUNG_TIMES)
    """What a candidate costs on rungs that a search may leave out."""
    latency = _Place("latency.json")
    """The latency model, where a budget needs one."""
    environment = _Place("environment.json")
    """The machine and the versions that the run began with."""
    study = _Place(STUDY_FILE)
    """The trials."""
    scores = _Place(SCORES)
    """Scores of images, mask by mask; derived."""
    log = _Place("run.log")
    """A line for each event."""
    lock = _Place("lock")
    """Held by the process that works on the run."""
    plans = _Place("plans.json")
    """Plans that were measured beside the trials."""
    timings = _Place("timings.jsonl")
    """The latency of networks that were timed."""
    certificates = _Place(CERTIFICATES)
    """Whether the winner was measured to keep its latency budget."""
    test = _Place("test.json")
    """What was measured on the test split, and how often it was opened."""
    training = _Place("training.progress")
    """The checkpoint of a training under a budget while it is under way."""
    artifacts = _Place("artifacts")
    """Folders of the networks that are finished."""
    finals = _Place("finals")
    """Folders of finals, each with checkpoints while it is under way, and then its record."""
    baselines = _Place("baselines")
    """Folders with the studies of the baselines."""

    @property
    def is_free(self) -> bool:
        """Whether a run may begin here: nothing is, or the log of a preparation that failed."""
        if self.path.is_dir():
            return set(self.path.iterdir()) == {self.log}
        return not self.path.exists()

    def baseline(self, name: str) -> Path:
        """Returns the folder of a baseline's study."""
        return self.baselines / name

    def artifact(self, plan: str) -> Path:
        """Returns the folder of a plan's fine-tuned network."""
        return self.artifacts / _file_name(plan)

    def progress(self, plan: str) -> Path:
        """Returns the checkpoint of a plan's fine-tuning while it is under way."""
        return self.path / f"{_file_name(plan)}.progress"

    def finalist(self, finals: str, plan: str) -> Path:
        """Returns the checkpoint of a plan in finals, named by their key, while they go on."""
        return self.finals / finals / f"{_file_name(plan)}.progress"


def _file_name(plan: str) -> str:
    return plan.replace(" ", "-")
