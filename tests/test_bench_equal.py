"""The comparison at equal training cost: its costs, its finals and its page."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    sys.path.insert(0, str(SCRIPTS))
    try:
        import bench_equal
        import equalpage

        yield bench_equal, equalpage
    finally:
        sys.path.remove(str(SCRIPTS))


def test_an_image_costs_what_its_passes_do(modules):
    bench, _ = modules
    # A student of 0.3: forward 0.3, backward 0.6, and the base network forward.
    assert bench.epoch_cost(0.3) == pytest.approx(1.9)
    # Three slices of 0.3, each forward and backward, and the base network forward once.
    assert bench.elastic_cost(0.3, 3) == pytest.approx(3.7)


@pytest.mark.parametrize(
    ("worth", "finals"),
    [
        (2, (2, 1)),  # two networks, an epoch each
        (3, (2, 1)),  # three would take 3 + 2 epochs
        (5, (3, 2)),  # 3 to the first epoch, 2 to the second: 5
        (6, (4, 2)),  # 4 to the first epoch, 2 to the second: 6
        (10, (4, 4)),  # 4 to the first epoch, 2 from there to the fourth: 4 + 6
    ],
)
def test_finals_cost_no_more_than_one_training(modules, worth, finals):
    bench, _ = modules
    assert bench.affordable_finals(worth) == finals


def row(page: ModuleType, method: str, seed: int, test: float) -> Any:
    about = {"space": "s", "ratio": 0.3, "worth": 10, "images": 5000, "elastic": 0}
    told = {"epochs": 10, "cost": 1.0, "scoring": 0.1, "macs": 0.3, "start": None}
    return page.Row(
        **about, **told, method=method, seed=seed, search=0.0, test=test, seconds=1, commit="c"
    )


def test_the_page_pairs_rows_by_seed(modules):
    _, page = modules
    base = [row(page, "global, no search", 0, 80.0), row(page, "global, no search", 1, 82.0)]
    own = [row(page, "rates", 1, 84.0), row(page, "rates", 0, 81.0), row(page, "rates", 2, 10.0)]
    # 1 and 2 points: their mean 1.5, error 0.5, and t(0.975, 1) = 12.706.
    assert str(page.minus_global(own, base)) == "+1.50 (-4.85 to +7.85)"
    text = page.page([*base, *own], "a machine")
    assert "| rates | 58.33 ± 41.88 (3) | +1.50 (-4.85 to +7.85) |" in text


def test_a_method_without_the_global_plan_beside_it_has_no_difference(modules):
    _, page = modules
    alone = row(page, "rates", 0, 81.0)
    assert "| rates | 81.00 (1) |  |" in page.page([alone], "a machine")
    other = row(page, "global, no search", 1, 80.0)
    assert "| rates | 81.00 (1) |  |" in page.page([alone, other], "a machine")


def test_finals_leave_their_place_to_those_of_another_length(modules, tmp_path, monkeypatch):
    bench, _ = modules
    artifact = tmp_path / "artifacts" / "trial-1"

    def finals(folder: Path, *, count: int, epochs: int) -> SimpleNamespace:
        artifact.mkdir(parents=True)  # there is none yet
        score = SimpleNamespace(accuracy=0.9)
        plan = SimpleNamespace(mask="mask")
        own = SimpleNamespace(plan=plan, history=[score], best_epoch=0)
        done = SimpleNamespace(finalists=[own], winner=0, image_macs=7, test=score)
        return SimpleNamespace(finals=done, artifact=SimpleNamespace(folder=artifact))

    monkeypatch.setattr(bench, "run_finals", finals)
    measured = [bench.Bench._finals(None, tmp_path, worth) for worth in (3, 10)]
    assert [own.epochs for own in measured] == [1, 4]


def test_runs_of_several_spaces_lie_side_by_side(modules, tmp_path, monkeypatch):
    bench, _ = modules
    file = SimpleNamespace(search={}, model_copy=None)
    created = []
    session = SimpleNamespace(
        create=lambda folder, **_: folder.mkdir() or created.append(folder),
        resume=lambda folder: pytest.fail(f"{folder} is another space's"),
    )
    monkeypatch.setattr("benchfiles.Session", session)
    for space in ("one.toml", "other.toml"):
        own = object.__new__(bench.Bench)
        own._given = SimpleNamespace(space=Path(space), runs=tmp_path)
        own._file = file
        own._session("rates", 0.3, 0, None)
    assert len(set(created)) == 2
