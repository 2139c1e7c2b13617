"""The test split of a run, behind the ledger that counts how often it is opened."""

from pathlib import Path

from evosearch.run.config import RunConfig
from evosearch.run.folder import RunFolder
from evosearch.run.subject import Subject
from evosearch.study.identity import Part
from evosearch.tasks.testing import TestReport


def open_ledger(folder: Path, config: RunConfig, subject: Subject) -> TestReport:
    """Returns what measures the finished networks of a run on test, each once.

    Args:
        folder: of the run.
        config: what was asked for.
        subject: whose identity has the images.
    """
    return TestReport(
        RunFolder(folder).test,
        config.space.data,
        Path(config.folder),
        task=subject.task,
        images=subject.identity.parts[Part.TEST],
    )
