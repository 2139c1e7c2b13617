"""The measurement on the test split: each named network once, counted in a ledger."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from evosearch.data.config import DataConfig
from evosearch.data.contents import listed_images, listed_test_images
from evosearch.data.splits import TestSplit, load_test_split
from evosearch.errors import InputError
from evosearch.files import write_text, writing
from evosearch.models.weights import weights_digest
from evosearch.study.imagelist import list_digest
from evosearch.study.scores import Score
from evosearch.tasks.classification import CLASSIFICATION
from evosearch.tasks.scoring import image_scores
from evosearch.tasks.task import Task


@final
@dataclass(frozen=True, kw_only=True)
class TestResult:
    """What one network was measured to be worth on the test split.

    Attributes:
        weights: digest of the network's weights.
        score: its loss and accuracy.
    """

    weights: str
    score: Score


class _Ledger(BaseModel):
    """The file: which data it is about, how often the split was opened, and what came of it.

    `images` is the digest of the split's images and labels.
    """

    model_config = ConfigDict(extra="forbid")

    data: DataConfig
    images: str
    opened: int = Field(default=0, ge=0)
    results: dict[str, TestResult] = Field(default_factory=dict)


@final
class TestReport:
    """Measures named, finished networks on the test split, each of them once.

    A ledger on disk holds the results and how often the split was opened, so that neither a
    second look nor a second program goes unseen.
    """

    def __init__(
        self,
        path: Path,
        data: DataConfig,
        folder: Path = Path(),
        *,
        task: Task = CLASSIFICATION,
        images: str | None = None,
    ) -> None:
        """Opens the ledger, or starts one with the first measurement.

        Args:
            path: of the ledger, a JSON file.
            data: the `[data]` section.
            folder: where the space file lies.
            task: what networks are judged by.
            images: digest of the split's images, where it is known; otherwise they are read.

        Raises:
            InputError: the file is no ledger, or one of other data; or an image cannot be read.
        """
        self._path, self._folder, self._task = path, folder, task
        if images is None:
            images = list_digest(listed_test_images(data, folder))
        self._ledger = _Ledger(data=data, images=images)
        if not path.exists():
            return
        try:
            self._ledger = _Ledger.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"{path}: not a ledger of test results ({reason})") from error
        if self._ledger.data != data:
            raise InputError(f"{path}: a ledger of other data; its [data] section differs")
        if self._ledger.images != images:
            raise InputError(
                f"{path}: a ledger of other data; the images of the test split differ: undo that,"
                " or start a new ledger"
            )

    @property
    def opened(self) -> int:
        """How often the test split was opened."""
        return self._ledger.opened

    @property
    def results(self) -> dict[str, TestResult]:
        """What was measured so far, by name, in order."""
        return dict(self._ledger.results)

    def measure(self, name: str, model: nn.Module) -> TestResult:
        """Returns a network's score on the test split, from the ledger where it has one.

        Args:
            name: what the network is called in the report.
            model: finished; left in the mode that it was in.

        Raises:
            InputError: the name was measured with other weights, or the split's images are no
                longer those that the ledger is of.
            EvaluationError: a loss is not finite.
            StorageError: the ledger cannot be written; then the split is not opened.
        """
        digest = weights_digest(model)
        known = self._ledger.results.get(name)
        if known is not None:
            if known.weights == digest:
                return known
            raise InputError(
                f"{self._path}: {name!r} was measured on test with other weights; a network is"
                " measured once, so give the new one another name"
            )
        # Counted before it is opened: a look that crashes is still a look.
        self._ledger.opened += 1
        self._save()
        outcome = image_scores(model, self._split, task=self._task).score
        result = TestResult(weights=digest, score=outcome)
        self._ledger.results[name] = result
        self._save()
        return result

    @cached_property
    def _split(self) -> TestSplit:
        split = load_test_split(self._ledger.data, self._folder)
        if list_digest(listed_images(split)) != self._ledger.images:
            raise InputError(
                f"{self._path}: the images of the test split changed while this program ran: undo"
                " that, and start it again"
            )
        return split

    def _save(self) -> None:
        with writing(self._path):
            write_text(self._path, self._ledger.model_dump_json(indent=2))
