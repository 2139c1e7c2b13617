"""A run's plan fine-tuned with kernels, a pace or penalties: what is saved, what is refused."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import evosearch
from evosearch.errors import InputError
from evosearch.export import artifact as artifact_module
from evosearch.export.rebuild import Implanted
from evosearch.models.build import build_model
from evosearch.report.pareto import ParetoView
from evosearch.run import finetuning
from evosearch.run.config import read_run_config
from evosearch.run.finetuning import Finetuned
from evosearch.run.picking import Picked, picked
from tests.test_cli import InProcess, assert_refused, run  # noqa: F401  (run is a fixture)

NETWORK = """
from torch import nn

def make():
    layers = []
    for inputs, outputs in ((1, 8), (8, 16), (16, 8)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 10))
"""
SPACE = """
[model]
build = "network.py:make"
input = [1, 8, 8]
[data]
name = "digits"
calibration = 150
search = 300
[groups]
multiple_of = 4
[train]
epochs = 3
[finetune]
epochs = 2
"""
POSITIONS = (16, 4, 1, 1)
"""Where each layer is applied in one image."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts meet no fresh process."""
    monkeypatch.setattr(artifact_module, "verify_reload", lambda *_: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of three trials, whose widths are multiples of four."""
    folder = tmp_path_factory.mktemp("finetuning")
    (folder / "network.py").write_text(NETWORK)
    (folder / "space.toml").write_text(SPACE)
    evosearch.search(
        folder / "space.toml",
        flops="60%",
        strategy="random",
        trials=2,
        out=folder / "run",
    )
    return folder


@pytest.fixture
def tuned(place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives what fine-tunes a trial of the run under other settings than it began with."""

    def tune(settings: dict[str, Any], name: str = "run", **options: Any) -> Finetuned:
        @contextmanager
        def changed(*arguments: Any, **given: Any) -> Iterator[Picked]:
            with picked(*arguments, **given) as run:  # noqa: F811
                config = run.prepared.config
                given = config.space.finetune.settings | settings
                own = type(config.space.finetune)(**given)
                space = config.space.model_copy(update={"finetune": own})
                config = config.model_copy(update={"space": space})
                yield replace(run, prepared=replace(run.prepared, config=config))

        monkeypatch.setattr(finetuning, "picked", changed)
        return evosearch.finetune(place / name, **options)

    return tune


def loaded(done: Finetuned, place: Path) -> nn.Sequential:
    config = read_run_config(place / "run").space.model
    network = done.artifact.load(lambda: build_model(config, place))
    assert isinstance(network, nn.Sequential)
    return network


def test_kernels_leave_zeros_that_the_card_counts(tuned: Any, place: Path) -> None:
    done = tuned({"kernels": "2:4"}, pick=0)
    network, card = loaded(done, place), done.artifact.card
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    nonzero = [int((layer.weight != 0).sum()) for layer in layers]
    for layer, count in zip(layers[1:-1], nonzero[1:-1], strict=True):
        assert 2 * count == layer.weight.numel()
    assert nonzero[-1] == layers[-1].weight.numel()
    macs = sum(n * positions for n, positions in zip(nonzero, POSITIONS, strict=True))
    assert card["nonzero_macs"] == macs < done.networks[-1].cost.macs
    assert done.networks[-1].cost == done.plan.cost  # FLOPs are what they are
    assert card["finetune"]["kernels"] == "2:4"
    text = (done.artifact.folder / "README.md").read_text()
    assert f"- Kernels 2:4: {macs:,} of the {done.plan.cost.macs:,} MACs" in text


def test_a_pace_leads_from_the_base_network_to_the_plan(tuned: Any, place: Path) -> None:
    done = tuned({"pace": {"name": "steps", "steps": 2}}, pick=1, epochs=4)
    network = loaded(done, place)
    widths = [len(m.weight) for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert widths == list(done.plan.mask.widths.values())
    assert done.networks[-1].cost == done.plan.cost
    assert done.distillation is not None
    base = done.networks[0]
    assert done.distillation.history[0].search == base.search
    assert "nonzero_macs" not in done.artifact.card


def test_implants_fill_the_room_that_a_plan_leaves(tuned: Any, place: Path) -> None:
    shutil.copytree(place / "run", place / "roomy", ignore=shutil.ignore_patterns("artifacts"))
    done = tuned({"implants": 1.0}, "roomy", pick="smallest")
    implants = [m for m in loaded(done, place).modules() if isinstance(m, Implanted)]
    study = evosearch.load_run(place / "roomy").study
    last = done.networks[-1]
    assert implants
    assert done.plan.cost.macs < last.cost.macs
    assert study.budget.violation(last.cost) == 0
    count = sum(last.mask.widths.values()) - sum(done.plan.mask.widths.values())
    assert last.name == f"{done.plan.name} and {count} implants, distilled 2 epochs"
    assert count == sum(len(module.places) for module in implants)
    assert any(module.implant.weight.any() for module in implants)
    assert done.within == "the run's budget"
    shown = ParetoView.read(place / "roomy").artifacts[done.plan.name].network
    assert shown.cost == last.cost


def test_what_does_not_divide_is_refused_before_any_training(
    tuned: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evosearch.training.trainer.Training.epochs", None)
    shutil.copytree(place / "run", place / "fresh", ignore=shutil.ignore_patterns("artifacts"))
    before = sorted(place.rglob("*"))
    message = r'kernels "2:5": 3 reads \d+ channels, no multiple of 5; set multiple_of = 5'
    with pytest.raises(InputError, match=message):
        tuned({"kernels": "2:5"}, "fresh", pick=0, baselines=True)
    assert sorted(place.rglob("*")) == before


BAD = {
    "an unknown penalty": ("[finetune.penalties]\nbn_l2 = 1.0", "did you mean 'bn_l1'"),
    "a negative one": ("[train.penalties]\nbn_l1 = -1", "expected a weight of 0 or more"),
    "penalties and freezing": (
        "[train]\nfreeze = 0.1\n[train.penalties]\nbn_l1 = 1e-4",
        "leave one of the two out",
    ),
    "unknown kernels": ('[finetune]\nkernels = "4:4"', "N:M with 1 <= N < M"),
    "a pace that ends late": ('[finetune]\npace = { name = "linear", end = 1 }', "ends after"),
    "more pieces than images": ("[finetune]\naccumulate = 65", "at most batch_size = 64, an"),
    "a pace and kernels": ('[finetune]\npace = "cubic"\nkernels = "zeros"', "leave one of"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused_before_a_search(
    name: str,
    place: Path,
    run: InProcess,  # noqa: F811
) -> None:
    section, message = BAD[name]
    text = SPACE.replace("[finetune]\nepochs = 2\n", "")
    (place / "bad.toml").write_text(text.replace("[train]\nepochs = 3\n", "") + section)
    done = run("search", "bad.toml", "--flops", "50%", "--out", "bad", cwd=place)
    assert_refused(done, message)
    assert not (place / "bad").exists()


def test_a_penalised_base_is_another_base(place: Path, tmp_path: Path) -> None:
    """Of other weights, kept apart; and a network without scales has no penalty on them."""
    found = []
    for section in ("", "[train.penalties]\nbn_l1 = 0.1"):
        text = SPACE.replace('"network.py', f'"{place}/network.py').replace(
            "epochs = 3", "epochs = 1"
        )
        (tmp_path / "space.toml").write_text(text.replace("[finetune]", f"{section}\n[finetune]"))
        found.append(evosearch.train(tmp_path / "space.toml"))
    assert found[0].weights != found[1].weights
    (tmp_path / "network.py").write_text(NETWORK.replace(", nn.BatchNorm2d(outputs)", ""))
    text = (tmp_path / "space.toml").read_text().replace(str(place), str(tmp_path))
    (tmp_path / "space.toml").write_text(text)
    with pytest.raises(InputError, match="no BatchNorm with a scale"):
        evosearch.train(tmp_path / "space.toml")
