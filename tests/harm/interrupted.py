"""A search of the toy network with two workers that stops at Ctrl-C; run by `test_interrupt`."""

import signal
import sys
from contextlib import closing
from pathlib import Path
from types import FrameType

from evosearch.engine.loop import Limits, search
from evosearch.engine.parallel import Workers
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from tests.harm.slowtoys import SlowToys
from tests.run.test_session import SPACE, builder, header
from tests.toys import ToyEvaluator


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def main(folder: Path) -> None:
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGINT, stop)
    study = Study.create(folder, header("random"))
    with closing(Workers(SlowToys(), images=ToyEvaluator.images, count=2)) as executor:
        outcome = search(
            study=study,
            space=SPACE,
            build=builder("random"),
            executor=executor,
            store=ScoreStore(folder / "scores"),
            limits=Limits(trials=1000),
            on_trial=lambda trial: say(trial.number),
            should_stop=lambda: stopping,
        )
    say(outcome.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
