"""The progress of a search: what it shows, and what Ctrl-C does before and during it."""

import io
import signal
import time
from pathlib import Path

import pytest
from rich.console import Console

from evosearch.report.progress import SearchProgress, epoch_lines, study_summary
from tests.report.toyrun import toy_run


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, highlight=False)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_search_is_shown_from_its_stages_to_its_baselines(tmp_path: Path) -> None:
    study = toy_run(tmp_path / "run", 8)
    console = terminal()
    with SearchProgress(console) as progress:
        told = progress.callbacks
        told.on_stage("statistics of layer inputs")
        told.on_search(study, 20)
        for trial in study.trials:
            told.on_trial(trial)
        time.sleep(0.5)  # the screen is drawn four times a second
        told.on_baselines(15)
        told.on_baseline_trial(study.trials[0])
        told.on_stage("latency of the winner")
        assert not told.should_stop()
    assert progress.pace.trials == 8
    assert "8/20" in text(console)
    assert study_summary(study) in text(console)
    assert "baselines" in text(console)
    assert "latency of the winner" in text(console)


def test_the_first_ctrl_c_of_a_search_stops_it_and_the_second_leaves(tmp_path: Path) -> None:
    study = toy_run(tmp_path / "run", 2)
    outer = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it
    before = signal.getsignal(signal.SIGINT)
    console = terminal()
    with SearchProgress(console) as progress:
        told = progress.callbacks
        with pytest.raises(KeyboardInterrupt):  # nothing to finish yet
            signal.raise_signal(signal.SIGINT)
        told.on_search(study, 20)
        signal.raise_signal(signal.SIGINT)
        assert told.should_stop()
        assert "stopping after this evaluation" in text(console)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, outer)


def test_training_has_a_line_for_every_tenth_of_its_epochs() -> None:
    from evosearch.training.epochs import EpochRecord

    console = terminal()
    told = epoch_lines("distillation", console)
    for epoch in range(31):
        told(EpochRecord(epoch=epoch, epochs=30, train_loss=1.0, search=None, seconds=2.0 * epoch))
    lines = text(console).splitlines()
    assert len(lines) == 11
    assert lines[0] == "distillation: epoch 0 of 30"
    assert lines[1] == "distillation: epoch 3 of 30, 54 s left"
    assert lines[-1] == "distillation: epoch 30 of 30, 0 s left"
