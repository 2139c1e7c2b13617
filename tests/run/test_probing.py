"""Sensitivities of a run: when they are measured, on how much, and when they need not be."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evosearch.engine.loop import Limits, search
from evosearch.engine.measurements import Measurements
from evosearch.engine.parallel import OneByOne
from evosearch.run.config import SearchConfig
from evosearch.run.preparation import Prepared
from evosearch.run.probing import cached_sensitivity, probed, probes_worth
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.knowledge import Knowledge
from evosearch.strategies.base import Problem
from evosearch.strategies.rates import Rates, RatesConfig
from evosearch.study.identity import Identity, Part
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study
from evosearch.study.trial import Trial
from tests.run.test_session import SPACE, header
from tests.toys import IDENTITY, ToyEvaluator, comparable, toy_knowledge

UNPROBED = replace(toy_knowledge(), sensitivity={})


def test_a_round_comes_before_sensitivities_and_a_resume_changes_nothing(tmp_path: Path) -> None:
    asked: list[int] = []

    def go_on(study: Study, trials: int) -> None:
        def build(aim: Budget, earlier: Sequence[Trial], _: Measurements) -> Rates:
            def probe(knowledge: Knowledge) -> Knowledge:
                asked.append(len(study.trials))
                return replace(knowledge, sensitivity=toy_knowledge().sensitivity)

            problem = Problem(
                space=SPACE,
                budget=aim,
                knowledge=UNPROBED,
                config=RatesConfig(),
                seed=0,
                earlier=earlier,
                probe=probe,
            )
            return Rates(problem)

        search(
            study=study,
            space=SPACE,
            build=build,
            executor=OneByOne(ToyEvaluator(failing=False)),
            store=ScoreStore(tmp_path / "scores"),
            limits=Limits(trials=trials),
        )

    def begun(name: str) -> Study:
        (tmp_path / name).mkdir()
        budget = BudgetRequest.of(flops="50%").resolve(SPACE.base_cost)
        return Study.create(tmp_path / name, replace(header("rates"), budget=budget))

    whole, cut = begun("whole"), begun("cut")
    go_on(whole, 12)
    assert asked == [4]
    for trials in (2, 4, 7, 12):
        go_on(cut, trials)
    assert asked == [4, 4, 7]  # by the two sessions that come past the first round
    assert comparable(cut.trials) == comparable(whole.trials)


def prepared(identity: Identity = IDENTITY, images: int = 40, **settings: Any) -> Prepared:
    """Returns a run on toys, as far as its sensitivities look at it."""
    config: Any = SimpleNamespace(
        search=SearchConfig(keep_ratios=(0.5,), probe_images=images, **settings)
    )
    subject: Any = SimpleNamespace(discovery=SimpleNamespace(space=SPACE), identity=identity)
    evaluator: Any = SimpleNamespace(images=ToyEvaluator.images)
    return Prepared(config=config, subject=subject, evaluator=evaluator, knowledge=UNPROBED)


class Counted(ToyEvaluator):
    """Counts the images that masks are scored on."""

    def __init__(self) -> None:
        super().__init__(failing=False)
        self.scored: list[int] = []

    def image_scores(self, mask: Any, start: int, stop: int) -> Any:
        self.scored.append(stop - start)
        return super().image_scores(mask, start, stop)


def probe(run: Prepared, folder: Path) -> tuple[Prepared, list[int], list[str]]:
    """Returns a run with sensitivities, how many images each score took, and what was told."""
    folder.mkdir()
    evaluator, told = Counted(), []
    measurements = Measurements(OneByOne(evaluator), ScoreStore(folder / "scores"))
    found = probed(run, folder / "knowledge.npz", measurements, told.append)
    return found, evaluator.scored, told


def test_probes_take_few_images_and_say_how_many_they_are(tmp_path: Path) -> None:
    found, scored, told = probe(prepared(), tmp_path / "a")
    assert scored == [40] * 4  # the base network, and half of each of three groups
    assert told[0].endswith("the strategies uniform, global and random need none")
    assert told[1] == "sensitivity of each group: 3 probes"
    assert told[2].startswith("sensitivity of each group: 1 of 3 probes, about ")
    assert told[-1] == "sensitivity of each group: 3 of 3 probes"
    assert probes_worth(prepared()) == 0
    assert probes_worth(found) == 2  # 3 probes of 40 of 100 images
    kept = Knowledge.load(tmp_path / "a" / "knowledge.npz")
    assert kept.gram.keys() == UNPROBED.gram.keys()
    assert kept.sensitivity.keys() == found.knowledge.sensitivity.keys() == SPACE.sizes.keys()
    measurements: Any = None  # what is known is not asked for again
    assert probed(found, tmp_path, measurements, told.append) is found


def test_a_second_run_of_the_same_space_measures_nothing(tmp_path: Path) -> None:
    first, _, _ = probe(prepared(), tmp_path / "a")
    second, scored, told = probe(prepared(), tmp_path / "b")
    assert (scored, told) == ([], [])
    for name, curve in first.knowledge.sensitivity.items():
        again = second.knowledge.sensitivity[name]
        np.testing.assert_array_equal(again.widths, curve.widths)
        np.testing.assert_array_equal(again.loss_increase, curve.loss_increase)
    cached_sensitivity(prepared()).write_bytes(b"torn")
    _, scored, _ = probe(prepared(), tmp_path / "c")
    assert len(scored) == 4


@pytest.mark.parametrize("part", sorted(set(Part) - {Part.CONFIRMATION, Part.TEST}))
def test_another_subject_is_probed_anew(part: Part) -> None:
    other = Identity(parts={**IDENTITY.parts, part: "other"})
    assert cached_sensitivity(prepared(other)) != cached_sensitivity(prepared())


@pytest.mark.parametrize(
    "settings",
    [{"seed": 1}, {"threads": 2}, {"images": 41}, {"evaluator": {"build_images": 4}}],
)
def test_other_settings_are_probed_anew(settings: dict[str, Any]) -> None:
    assert cached_sensitivity(prepared(**settings)) != cached_sensitivity(prepared())
    assert cached_sensitivity(prepared(trials=7)) == cached_sensitivity(prepared())
