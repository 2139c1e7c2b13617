"""Progress where there is no terminal: lines, few of them, and none missing."""

import io
from pathlib import Path

from rich.console import Console

from evosearch.report.lines import Lines
from evosearch.report.progress import SearchProgress, shown
from tests.report.toyrun import toy_run


def file_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=40, highlight=False)


def lines_of(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_stage_prints_its_beginning_its_end_and_a_line_every_ten_seconds() -> None:
    now, console = 1000.0, file_console()
    lines = Lines(console, lambda: now)
    for second in range(25):
        now = 1000.0 + second
        lines.tell(f"probes: {second} of 24, and more than fits into a line of this width")
    now = 1025.0
    lines.tell("search: 40 trials")
    lines.tell("search: trial 0 is done", now=True)
    now = 1027.0
    lines.tell("search: trial 1 is done")
    lines.close()
    lines.close()
    text = ", and more than fits into a line of this width"
    assert lines_of(console) == [
        f"  [0 s] probes: 0 of 24{text}",
        f" [10 s] probes: 10 of 24{text}",
        f" [20 s] probes: 20 of 24{text}",
        f" [25 s] probes: 24 of 24{text}",
        " [25 s] search: 40 trials",
        " [25 s] search: trial 0 is done",
        " [27 s] search: trial 1 is done",
    ]


def test_a_redirected_search_tells_every_stage_its_first_trial_and_its_last(
    tmp_path: Path,
) -> None:
    study = toy_run(tmp_path / "run", 8)
    console = file_console()
    with SearchProgress(console) as progress:
        told = progress.callbacks
        told.on_stage("data")
        told.on_stage("channel groups, traced and proven")
        told.on_search(study, 20)
        for trial in study.trials[:4]:
            told.on_trial(trial)
        told.on_stage("sensitivity of each group: 56 probes")
        for trial in study.trials[4:]:
            told.on_trial(trial)
        told.on_baselines(15)
        told.on_baseline_trial(study.trials[0])
    found = [line.partition("] ")[2] for line in lines_of(console)]
    assert found[:2] == ["data", "channel groups, traced and proven"]
    assert found[2].startswith("search: 12 trials")
    assert [line.split(";")[0].split(",")[0] for line in found[3:]] == [
        "search: trial 0 is done",
        "search: trial 3 is done",
        "sensitivity of each group: 56 probes",
        "search: trial 4 is done",
        "search: trial 7 is done",
        "baselines: at most 15 trials",
        "baselines: 1 trials",
    ]


def test_quiet_is_silent_and_other_commands_tell_their_stages() -> None:
    console, quiet = file_console(), file_console()
    quiet.quiet = True
    for target in (console, quiet):
        with shown(target) as told:
            told.on_stage("tracing and proving")
            told.on_stage("test")
    assert [line.split("] ")[1] for line in lines_of(console)] == ["tracing and proving", "test"]
    assert lines_of(quiet) == []
