"""The comparison at equal training cost: its costs, its finals and its page."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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


def test_the_page_pairs_rows_by_seed(modules):
    _, page = modules

    def row(method: str, seed: int, test: float) -> object:
        about = {"space": "s", "ratio": 0.3, "worth": 10, "images": 5000, "elastic": 0}
        told = {"epochs": 10, "cost": 1.0, "scoring": 0.1, "macs": 0.3, "start": None}
        return page.Row(
            **about, **told, method=method, seed=seed, search=0.0, test=test, seconds=1, commit="c"
        )

    base = [row("global, no search", 0, 80.0), row("global, no search", 1, 82.0)]
    own = [row("rates", 1, 84.0), row("rates", 0, 81.0), row("rates", 2, 10.0)]
    # 1 and 2 points: their mean 1.5, error 0.5, and t(0.975, 1) = 12.706.
    assert str(page.minus_global(own, base)) == "+1.50 (-4.85 to +7.85)"
    text = page.page([*base, *own], "a machine")
    assert "| rates | 58.33 ± 41.88 (3) | +1.50 (-4.85 to +7.85) |" in text
