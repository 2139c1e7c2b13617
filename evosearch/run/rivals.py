"""Where the baselines of a run are recorded."""

from pathlib import Path

from evosearch.study.study import Study

FOLDER = "baselines"
NAMES = ("random", "uniform", "global")


def rival_studies(folder: Path) -> dict[str, Study]:
    """Returns the studies of a run's baselines, by name; only those that were begun."""
    places = {name: folder / FOLDER / name for name in NAMES}
    return {name: Study.open(place) for name, place in places.items() if place.is_dir()}
