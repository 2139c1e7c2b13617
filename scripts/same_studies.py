"""Whether two checkouts of evosearch give the same studies and artifacts, byte for byte.

`python scripts/same_studies.py OLD NEW` runs every strategy for 12 trials on the digits with each
checkout (folders that hold `evosearch/`), distils the least loss for two epochs, and compares what
is on disk. Times, dates and versions are left out, and so are the settings in a study's header.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from safetensors.numpy import load_file

STRATEGIES = (
    *("rates", "genetic", "layerwise", "random", "uniform", "global", "triangular", "relative"),
)
SEARCHES = {name: ("--strategy", name, "--flops", "30%..70%") for name in STRATEGIES} | {
    "accuracy": ("--accuracy-drop", "1.0"),
    "two budgets": ("--flops", "40%", "--params", "50%"),
}
UNEQUAL = {"seconds", "config", "config_digest", "format", "identity"}
"""Keys whose values two runs of one checkout differ in, or that no result depends on."""
SPACE = """
[model]
build = "evosearch.evaluation.models:digits_resnet"
input = [1, 8, 8]
kwargs = { width = 12 }
[data]
name = "digits"
mean = [0.305]
std = [0.376]
augment = ["crop"]
calibration = 200
search = 350
[train]
epochs = 10
[finetune]
attention = 1.0
"""


def run(checkout: Path, folder: Path, *arguments: str) -> None:
    """Runs one command of a checkout; its base networks are cached in `folder`."""
    places = {"PYTHONPATH": str(checkout.resolve()), "EVOSEARCH_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "evosearch.cli", "--quiet", *arguments]
    subprocess.run(
        command, cwd=folder, env={**os.environ, **places}, check=True, stdout=subprocess.DEVNULL
    )


def comparable(value: Any) -> Any:
    """Returns JSON without what no two runs share."""
    if isinstance(value, dict):
        return {key: comparable(inner) for key, inner in value.items() if key not in UNEQUAL}
    return [comparable(inner) for inner in value] if isinstance(value, list) else value


def study(folder: Path) -> str:
    """Returns what a run's study holds, as text."""
    storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    opened = optuna.load_study(study_name="evosearch", storage=storage)
    trials = [
        [t.number, t.state.name, t.values, t.params, t.user_attrs, dict(t.constraints)]
        for t in opened.get_trials()
    ]
    return json.dumps(comparable([opened.user_attrs, trials]))


def weights(path: Path) -> bytes:
    """Returns the tensors of a file, name by name, but for counts of batches."""
    tensors = sorted(load_file(path).items())
    counted = [(name, t) for name, t in tensors if not name.endswith("num_batches_tracked")]
    return b"".join(name.encode() + tensor.tobytes() for name, tensor in counted)


def results(checkout: Path, folder: Path) -> dict[str, str | bytes]:
    """Returns what a checkout makes: by name, studies as text, and files as bytes."""
    (folder / "space.toml").write_text(SPACE)
    found: dict[str, str | bytes] = {}
    for name, options in SEARCHES.items():
        place = folder / name.replace(" ", "-")
        run(
            checkout,
            folder,
            "search",
            "space.toml",
            *options,
            "--trials",
            "12",
            "--out",
            str(place),
        )
        found[f"study: {name}"] = study(place)
        for file in ("knowledge.npz", "base.safetensors"):
            found[f"{name}: {file}"] = (place / file).read_bytes()
        if name in ("rates", "genetic"):
            run(checkout, folder, "finetune", str(place), "--pick", "best", "--epochs", "2")
            (artifact,) = (place / "artifacts").iterdir()
            found[f"{name}: artifact's weights"] = weights(artifact / "weights.safetensors")
            found[f"{name}: artifact's plan"] = (artifact / "plan.json").read_bytes()
            card = json.loads((artifact / "card.json").read_text())
            found[f"{name}: networks of the card"] = json.dumps(comparable(card["networks"]))
    return found


def main() -> None:
    """Prints a line for everything compared, and fails where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    checkouts = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with TemporaryDirectory() as old, TemporaryDirectory() as new:
        before, after = results(checkouts.old, Path(old)), results(checkouts.new, Path(new))
    for name, value in before.items():
        print("same     " if after.get(name) == value else "DIFFERENT", name)
    sys.exit(before != after)


if __name__ == "__main__":
    main()
