"""A search on elastic weights: trained once, cached, opened again, shipped."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import evosearch
from evosearch.engine.config import EvaluatorConfig
from evosearch.errors import InputError
from evosearch.export import artifact as artifact_module
from evosearch.models.weights import load_weights, save_weights, weights_digest
from evosearch.models.zoo import digits_resnet
from evosearch.run import elastic as elastic_module
from evosearch.run import identity as identity_module
from evosearch.run import subject as subject_module
from evosearch.run.callbacks import Callbacks
from evosearch.run.config import SearchConfig, read_run_config
from evosearch.run.elastic import MADE, cached_elastic, cost_in_epochs
from evosearch.run.folder import RunFolder
from evosearch.run.reopening import RunEvaluator
from evosearch.run.saving import ELASTIC, UNTRAINED
from evosearch.study.identity import Identity, Part
from evosearch.study.study import Study
from evosearch.study.trial import Rung
from evosearch.surgery.compaction import compact
from evosearch.training.elastic import ElasticConfig
from tests.toys import toy_knowledge, toy_space

SPACE = """
[model]
build = "evosearch.models.zoo:digits_resnet"
input = [1, 8, 8]
[model.kwargs]
width = 4
[data]
name = "digits"
calibration = 150
search = 350
[train]
epochs = 2
[elastic]
epochs = 2
batch_size = 16
alpha = 0.0  # of labels alone: more is learned in two epochs than the base network knows
palette = 3
[search]
threads = 1
device = "cpu"
[search.evaluator]
build = "elastic"
precision = "float32"
[finetune]
epochs = 0
"""


WIDTHS = np.array([[1, 2, 3], [3, 4, 6], [5, 6, 8]])


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def quick() -> Any:
    """Traces and proves the one architecture here once; artifacts meet no fresh process."""
    known: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patched:
        for module, name in (
            (subject_module, "discover_space"),
            (identity_module, "graph_digest"),
        ):
            real = getattr(module, name)

            def once(*given: Any, name: str = name, real: Any = real) -> Any:
                if name not in known:
                    known[name] = real(*given)
                return known[name]

            patched.setattr(module, name, once)
        patched.setattr(artifact_module, "verify_reload", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, quick: Any) -> Path:
    """A folder with a space file, the cache of base and elastic weights, and a run."""
    folder = tmp_path_factory.mktemp("elastic")
    (folder / "space.toml").write_text(SPACE)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("EVOSEARCH_CACHE", str(folder / "cache"))
        torch.set_num_threads(1)
        search(folder, "run", strategy="genetic", trials=16)
    return folder


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOSEARCH_CACHE", str(place / "cache"))


def search(place: Path, name: str, **options: Any) -> evosearch.Run:
    given = {"flops": "20%..60%", "strategy": "random", "trials": 2, **options}
    return evosearch.search(place / "space.toml", out=place / name, anyway=True, **given)


def test_candidates_climb_past_the_rung_that_tells_of_refitted_weights(place: Path) -> None:
    study = Study.open(place / "run")
    rungs = {step.rung for trial in study.trials for step in trial.steps}
    assert Rung.COMPENSATED not in rungs
    assert {Rung.PARTIAL, Rung.FULL} <= rungs


def test_a_worker_scores_what_the_run_did(place: Path) -> None:
    study = Study.open(place / "run")
    evaluator = RunEvaluator(str(place / "run"))()
    trial = next(trial for trial in study.trials if trial.is_complete)
    assert evaluator.builder.is_elastic(trial.mask)
    assert trial.evaluation is not None
    assert evaluator.evaluate(trial.mask).score == trial.evaluation.score


def test_the_same_search_trains_no_second_time(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elastic_module, "train_elastic", None)
    search(place, "again")
    first, again = (Study.open(place / name).header.identity for name in ("run", "again"))
    assert again.parts[Part.ELASTIC] == first.parts[Part.ELASTIC] != first.parts[Part.WEIGHTS]
    assert read_run_config(place / "again").space.elastic is not None
    with pytest.raises(TypeError, match="not callable"):  # another seed's weights are others
        search(place, "other", seed=1)


def test_plans_begin_compensated(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[torch.nn.Module] = []

    def train(base: torch.nn.Module, groups: Any, palette: Any, *_: Any, **given: Any) -> None:
        begun.extend([given["start"](palette[0]), compact(base, groups, palette[0])])
        raise Killed

    monkeypatch.setattr(elastic_module, "train_elastic", train)
    with pytest.raises(Killed):
        search(place, "begun", seed=2)
    started, plain = (dict(network.named_parameters()) for network in begun)
    refitted = [name for name in started if not torch.equal(started[name], plain[name])]
    assert "layer1.0.conv2.weight" in refitted
    assert not any("bn" in name for name in refitted)


CACHED = SearchConfig(device="cpu", threads=1)


@pytest.mark.parametrize(
    ("elastic", "search"),
    [
        ({"lr": 0.1}, {}),
        ({"optimizer": "muon"}, {}),
        ({"precision": "bfloat16"}, {}),
        ({}, {"seed": 1}),
        ({}, {"threads": 2}),
        ({}, {"evaluator": EvaluatorConfig(calibration_batch=64)}),
        ({}, {"evaluator": EvaluatorConfig(rescale=True)}),
    ],
)
def test_what_elastic_weights_follow_from_names_their_place(
    elastic: dict[str, Any], search: dict[str, Any]
) -> None:
    space = toy_space()
    masks = [space.top_channels(w, toy_knowledge().scores["l1"]) for w in WIDTHS]
    parts = dict.fromkeys(Part, "one")

    def key(
        elastic: dict[str, Any], search: dict[str, Any], parts: dict[Part, str] = parts
    ) -> Path:
        subject: Any = SimpleNamespace(
            discovery=SimpleNamespace(space=space), identity=Identity(parts=parts)
        )
        config = ElasticConfig(precision="float32").model_copy(update=elastic)
        return cached_elastic(subject, config, CACHED.model_copy(update=search), masks)

    assert key({}, {}) == key({}, {})
    assert key(elastic, search) != key({}, {})
    # Of no consequence for the weights: what is scored, and how.
    assert key(elastic, {**search, "trials": 7}) == key(elastic, search)
    for part in (Part.CALIBRATION, Part.TRAIN, Part.WEIGHTS):
        assert key({}, {}, {**parts, part: "other"}) != key({}, {})
    assert key({}, {}, {**parts, Part.TEST: "other"}) == key({}, {})


def test_a_killed_preparation_goes_on_and_ends_as_it_would_have(place: Path) -> None:
    (cached,) = (place / "cache" / "elastic").glob("*.safetensors")
    whole, progress = cached.read_bytes(), cached.with_suffix(".checkpoint")
    cached.unlink()
    stages: list[str] = []

    def kill(stage: str) -> None:
        if stage.startswith("elastic weights: 1 of"):
            raise Killed

    with pytest.raises(Killed):
        search(place, "killed", callbacks=Callbacks(on_stage=kill))
    assert progress.exists()
    assert not (place / "killed" / "config.toml").exists()
    search(place, "killed", callbacks=Callbacks(on_stage=stages.append))
    told = [stage for stage in stages if stage.startswith("elastic")]
    assert told == ["elastic weights: 1 epochs", "elastic weights: 1 of 1 epochs"]
    assert cached.read_bytes() == whole == RunFolder(place / "killed").elastic.read_bytes()
    assert not progress.exists()


def test_a_plan_is_shipped_as_elastic_weights_changed_it(place: Path) -> None:
    finetuned = evosearch.finetune(place / "run", at="flops=40%", epochs=0)
    notes = finetuned.artifact.card["notes"]
    assert ELASTIC in notes
    assert UNTRAINED not in notes
    network = evosearch.load_run(place / "run").network(at="flops=40%")
    shipped = finetuned.artifact.load(lambda: digits_resnet(width=4))
    assert weights_digest(shipped) == weights_digest(network)


def test_other_elastic_weights_than_the_run_began_with_are_refused_by_name(place: Path) -> None:
    search(place, "changed")
    path = RunFolder(place / "changed").elastic
    network = digits_resnet(width=4)
    load_weights(network, path)
    with torch.no_grad():
        network.linear.bias += 1e-6
    save_weights(network, path)
    with pytest.raises(InputError, match="no longer the same: the elastic weights, or how"):
        RunEvaluator(str(place / "changed"))()


def test_a_run_whose_candidates_were_made_otherwise_is_refused(place: Path) -> None:
    """Its scores, and the networks that it would ship, would be of two kinds."""
    shutil.copytree(place / "run", place / "before")
    (log,) = (place / "before").glob("study.log")
    text = log.read_text()
    assert f", {MADE}" in text
    log.write_text(text.replace(f", {MADE}", ""))
    with pytest.raises(InputError, match="no longer the same: the elastic weights, or how"):
        RunEvaluator(str(place / "before"))()


def test_the_cost_counts_the_teacher_and_the_plans_of_a_step() -> None:
    space = toy_space()
    masks = [space.top_channels(w, toy_knowledge().scores["l1"]) for w in WIDTHS]
    shares = [space.cost(mask).macs / space.base_cost.macs for mask in masks]
    config = ElasticConfig(epochs=6, plans=2)
    # Forward through the teacher is a third of a step of the whole network.
    expected = 6 * (1 / 3 + shares[0] + (shares[1] + shares[2]) / 2)
    assert cost_in_epochs(space, masks, config) == pytest.approx(expected)
    assert cost_in_epochs(space, masks[:1], config) == pytest.approx(6 * (1 / 3 + shares[0]))


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            {"flops": None, "accuracy_drop": 5},
            r"an accuracy drop names none: give FLOPs or params",
        ),
        ({"flops": "50%", "accuracy_drop": 5}, r"say where they begin, such as --flops 10%\.\."),
        ({"flops": None, "latency": "50%"}, r"a latency names none: give FLOPs or params"),
    ],
)
def test_a_budget_of_no_sizes_is_refused_before_anything_is_trained(
    place: Path, monkeypatch: pytest.MonkeyPatch, budget: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(subject_module, "train_base", None)
    monkeypatch.setenv("EVOSEARCH_CACHE", str(place / "empty"))
    with pytest.raises(InputError, match=message):
        search(place, "refused", **budget)
