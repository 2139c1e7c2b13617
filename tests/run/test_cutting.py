"""Networks that are cut and not trained: of spaces and runs, saved, and loaded elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
import torch
from safetensors.torch import load_file

import evosearch
from evosearch.api.networks import cut
from evosearch.errors import InputError
from evosearch.export.rebuild import rebuild
from evosearch.models.weights import weights_digest
from evosearch.report.pareto import ParetoView
from evosearch.run.cutting import Cut
from evosearch.run.preparation import Prepared
from evosearch.run.reopening import reopen
from evosearch.space.budget import Budget
from evosearch.strategies.two_step_plan import two_step_plan
from tests.run import ownnetworks
from tests.run.ownspaces import IMAGES, NAMES, write_space


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cutting")


@pytest.fixture(scope="module")
def cuts(place: Path) -> dict[str, Cut]:
    """Every network at half its FLOPs, without a search."""
    return {name: cut(write_space(place, name), flops="50%") for name in NAMES}


@pytest.fixture(scope="module")
def loaded(place: Path, cuts: dict[str, Cut]) -> dict[str, torch.Tensor]:
    """What each network answers in a fresh process, started where its code lies."""
    for name, done in cuts.items():
        torch.save(done.network, place / f"{name}.pt")
    torch.save(IMAGES, place / "images.pt")
    code = (
        "import sys, torch\n"
        "images = torch.load('images.pt')\n"
        "found = {n: torch.load(f'{n}.pt', weights_only=False)(images) for n in sys.argv[1:]}\n"
        "torch.save(found, 'found.pt')\n"
        "sys.exit('evosearch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, *NAMES]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: dict[str, torch.Tensor] = torch.load(place / "found.pt")
    return answers


@pytest.fixture(scope="module")
def run(place: Path) -> evosearch.Run:
    return evosearch.search(
        write_space(place, "densenet"), flops="40%..70%", trials=4, out=place / "run"
    )


@pytest.fixture(scope="module")
def prepared(run: evosearch.Run) -> Prepared:
    return reopen(run.folder, run.study.header, lambda _: None)


@pytest.fixture
def unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves artifacts without starting a process for each; the tests load them."""
    monkeypatch.setattr("evosearch.export.artifact.verify_reload", lambda *_: None)


@pytest.mark.parametrize("name", NAMES)
def test_a_space_is_cut_within_its_budget_in_one_go(name: str, cuts: dict[str, Cut]) -> None:
    done = cuts[name]
    assert 0.3 < done.plan.cost.macs / done.base.cost.macs <= 0.5
    assert done.plan.search.images == done.base.search.images == 48
    assert done.artifact is None
    assert not done.network.training
    assert sum(p.numel() for p in done.network.parameters()) < 0.9 * done.base.cost.params
    done.network(IMAGES).sum().backward()  # its owner may train it
    assert all(p.grad is not None for p in done.network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_whole_loads_elsewhere(
    name: str, cuts: dict[str, Cut], loaded: dict[str, torch.Tensor]
) -> None:
    torch.testing.assert_close(loaded[name], cuts[name].network(IMAGES))


@pytest.mark.parametrize("channels", ["lasso", "coreset"])
def test_others_may_choose_the_channels_of_the_same_widths(
    channels: str, cuts: dict[str, Cut], place: Path
) -> None:
    done, usual = cut(place / "squeeze.toml", flops="50%", channels=channels), cuts["squeeze"]
    assert done.plan.mask.widths == usual.plan.mask.widths
    assert done.plan.mask != usual.plan.mask
    assert done.plan.cost == usual.plan.cost
    assert done.network(IMAGES).isfinite().all()


@pytest.mark.slow
def test_digits_are_read_in_half_the_flops_with_channels_by_lasso(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOSEARCH_CACHE", str(tmp_path))
    space = Path(__file__).parents[2] / "search_spaces" / "digits_resnet.toml"
    by_lasso, drawn = (cut(space, flops="50%", channels=way) for way in ("lasso", "coreset"))
    assert by_lasso.plan.cost == drawn.plan.cost
    assert by_lasso.plan.search.accuracy > 0.95
    assert drawn.plan.search.accuracy < by_lasso.plan.search.accuracy  # it is not refitted


def test_flops_and_params_hold_together(place: Path) -> None:
    done = cut(write_space(place, "shufflenet"), flops="60%", params="45%")
    assert done.plan.cost.macs <= 0.6 * done.base.cost.macs
    assert 0.3 * done.base.cost.params < done.plan.cost.params <= 0.45 * done.base.cost.params


def test_a_network_of_a_run_is_its_final_build(run: evosearch.Run, prepared: Prepared) -> None:
    expected = prepared.evaluator.builder.final(run.pick("best").mask)
    assert weights_digest(run.network("best")) == weights_digest(expected)


@pytest.mark.usefixtures("unverified")
def test_a_run_is_cut_to_an_artifact_and_no_epochs_give_the_same(
    run: evosearch.Run, place: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evosearch.run.finetuning.time_fresh", None)  # nothing asks for a latency
    alone = cut(run.folder, at="flops=55%", to=place / "best")
    tuned = evosearch.finetune(run.folder, at="flops=55%", epochs=0, baselines=True)
    assert alone.artifact is not None
    assert tuned.distillation is None
    built = prepared.evaluator.builder.final(alone.plan.mask)
    assert weights_digest(alone.network) == weights_digest(built)
    files = [folder / "weights.safetensors" for folder in (place / "best", tuned.artifact.folder)]
    first, second = (load_file(file) for file in files)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert alone.artifact.plan == tuned.artifact.plan
    assert tuned.within == "flops=55%"
    assert [network.name for network in tuned.networks] == [
        "base network",
        "lowest-L1 uniform, recalibrated, flops=55%",
        "global, no search, flops=55%",
        alone.plan.name,
    ]
    for network in tuned.networks[1:3]:
        assert 0.5 < network.cost.macs / tuned.networks[0].cost.macs <= 0.55
    assert alone.plan.search == tuned.networks[-1].search
    for artifact in (alone.artifact, tuned.artifact):
        assert artifact.card["notes"][0].startswith("not trained: ")
        text = (artifact.folder / "README.md").read_text()
        assert "- Not trained: " in text
        assert "Latency" not in text
    assert tuned.networks[-1].test is not None
    assert "test" not in alone.artifact.card["networks"][-1]
    assert "test accuracy" not in (place / "best" / "README.md").read_text()
    assert ParetoView.read(run.folder).artifacts == {}  # none of them is distilled
    rebuilt = rebuild(ownnetworks.densenet(), place / "best")
    torch.testing.assert_close(rebuilt(IMAGES), alone.network(IMAGES))


@pytest.mark.usefixtures("unverified")
def test_an_artifact_of_a_space_says_where_it_is_from(place: Path) -> None:
    space = write_space(place, "squeeze")
    done = cut(space, flops="50%", to=place / "squeeze")
    card = json.loads((place / "squeeze" / "card.json").read_text())
    assert card["plan"] == done.plan.name
    assert card["space"] == str(space)
    assert "no search: " in card["notes"][1]
    with pytest.raises(InputError, match="exists already"):
        cut(space, flops="50%", to=place / "squeeze")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_artifact_of_a_space_is_exported(name: str, place: Path, tmp_path: Path) -> None:
    space = write_space(place, name)
    done = cut(space, flops="50%", to=tmp_path / "cut")
    evosearch.export_artifact(tmp_path / "cut", to=tmp_path / "copy")
    rebuilt = rebuild(getattr(ownnetworks, name)(), tmp_path / "copy")
    torch.testing.assert_close(rebuilt(IMAGES), done.network(IMAGES))
    for trusted in ({"space": space}, {"trust": True}):
        to = tmp_path / f"{next(iter(trusted))}.pt2"
        exported = evosearch.export_artifact(tmp_path / "cut", to=to, format="pt2", **trusted)
        assert exported.difference is not None
        assert exported.difference < 1e-4


def test_the_first_plan_is_the_allocation_of_the_two_step_errors(
    cuts: dict[str, Cut], prepared: Prepared
) -> None:
    """The run of the same space has the same Gram matrices."""
    space, gram = prepared.subject.discovery.space, prepared.knowledge.gram
    half = Budget.exactly(macs=space.base_cost.macs // 2)
    assert cuts["densenet"].plan.mask == two_step_plan(space, half, gram)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "needs a budget"),
        ({"latency": "60%"}, "--latency takes a search"),
        ({"accuracy_drop": 1.0, "flops": "50%"}, "--accuracy-drop takes a search"),
        ({"flops": "30%..70%"}, "without a range"),
        ({"flops": "1%"}, "smallest reachable network"),
        ({"flops": "50%", "channels": "laso"}, "did you mean 'lasso'"),
        ({"pick": "knee"}, "a run, which is a folder"),
        ({"at": "flops=50%"}, "a run, which is a folder"),
    ],
)
def test_what_a_space_cannot_be_cut_to(given: dict[str, str], why: str, place: Path) -> None:
    with pytest.raises(InputError, match=why):
        cut(write_space(place, "squeeze"), **given)


def test_what_a_run_cannot_be_cut_to(run: evosearch.Run, place: Path) -> None:
    with pytest.raises(InputError, match="named by --at flops=50% or --pick"):
        cut(run.folder, flops="50%")
    with pytest.raises(InputError, match="--channels is for a space file"):
        cut(run.folder, channels="lasso")
    with pytest.raises(InputError, match="give one of them"):
        cut(run.folder, pick="knee", at="flops=50%")
    with pytest.raises(InputError, match="no such file"):
        cut(place / "nowhere", flops="50%")


def test_a_base_network_that_guesses_is_refused_as_by_a_search(tmp_path: Path) -> None:
    space = {
        "model": {
            "build": "evosearch.models.zoo:digits_resnet",
            "input": [1, 8, 8],
            "weights": "built",
            "kwargs": {"width": 4},
        },
        "data": {"name": "digits", "calibration": 32, "search": 64},
    }
    (tmp_path / "guessing.toml").write_text(tomli_w.dumps(space))
    with pytest.raises(InputError, match=r"guessing their commonest class .* --anyway"):
        cut(tmp_path / "guessing.toml", flops="50%")
    assert cut(tmp_path / "guessing.toml", flops="50%", anyway=True).plan.search.images == 64


def test_code_that_no_process_can_import_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = write_space(tmp_path, "shufflenet")
    (tmp_path / "nets.py").rename(tmp_path / "my-nets.py")
    space.write_text(space.read_text().replace("nets.py", "my-nets.py"))
    cut(space, flops="50%")
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "evosearch.run.cutting"]
    assert str(tmp_path / "my-nets.py") in warning
    assert "rename the file" in warning
