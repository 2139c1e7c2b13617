"""The main job on the digits: what holds of the real network, and what the search is worth."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from evosearch.engine.loop import Limits
from evosearch.run.config import SearchConfig
from evosearch.run.evaluating import make_evaluator
from evosearch.run.references import PLAIN
from evosearch.run.session import Session
from evosearch.run.spacefile import SpaceFile, load_space_file
from evosearch.run.subject import Subject, load_subject
from evosearch.seeding import Stream, generator
from evosearch.space.budget import BudgetRequest
from evosearch.strategies.genetic_layer import GeneticConfig, evaluate, evolve
from evosearch.strategies.two_step import TwoStep
from evosearch.surgery.compaction import compact, masked
from evosearch.training.distillation import FinetuneConfig

ROOT = Path(__file__).parent.parent
SPACE = ROOT / "search_spaces" / "digits_resnet.toml"
BUDGETS = ("50%", "25%")
SEARCHED = "searched"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> SpaceFile:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield load_space_file(SPACE)


@pytest.fixture(scope="module")
def subject(file: SpaceFile) -> Subject:
    return load_subject(file, SPACE.parent)


def test_every_stream_and_inner_layer_is_proven(subject: Subject) -> None:
    names = {group.name for group in subject.discovery.space.groups}
    assert names == {
        "conv1",
        "layer1.0.conv1",
        "layer2.0.conv1",
        "layer2.0.conv2",
        "layer3.0.conv1",
        "layer3.0.conv2",
    }
    assert {proof.group for proof in subject.discovery.proofs} == names
    assert subject.discovery.space.prunable_share == 1


def test_masked_and_compact_outputs_agree(subject: Subject) -> None:
    space, layers = subject.discovery.space, subject.discovery.layers
    images = subject.data.calibration.images[:32]
    rng = np.random.default_rng(0)
    for _ in range(10):
        widths = np.array([rng.choice(group.legal_widths()) for group in space.groups])
        mask = space.top_channels(widths, {g.name: rng.random(g.size) for g in space.groups})
        with torch.no_grad():
            small = compact(subject.model, space.groups, mask).eval()(images)
            with masked(subject.model, space.groups, layers, mask) as model:
                torch.testing.assert_close(small, model(images), rtol=1e-5, atol=1e-5)


def test_the_genetic_algorithm_is_never_worse_than_greedy_removal(subject: Subject) -> None:
    evaluator = make_evaluator(SearchConfig(device="cpu"), subject, FinetuneConfig())
    gram = evaluator.knowledge(["l1"]).gram
    two_step = TwoStep(subject.discovery.space, gram)
    for group in subject.discovery.space.groups:
        block = gram[group.name, group.name]
        order = two_step.removal_order(group.name)
        for width in range(1, group.size, max(1, group.size // 6)):
            greedy = ~np.isin(np.arange(group.size), order[: group.size - width])
            rng = generator(0, Stream.GENETIC, group.name, width)
            found = evolve(block, width, GeneticConfig(), rng)
            assert found.keep.sum() == width
            assert found.error <= evaluate(block, greedy[None])[0] * (1 + 1e-12)


@pytest.mark.parametrize("strategy", ["rates", "genetic", "layerwise", "global"])
def test_recounted_flops_of_every_trial_are_within_the_budget(
    strategy: str, file: SpaceFile, tmp_path: Path
) -> None:
    run = Session.create(
        tmp_path / "run",
        space_file=file,
        space_folder=SPACE.parent,
        search=SearchConfig(strategy=strategy, device="cpu"),
        request=BudgetRequest.of(flops="20%..60%", params="65%"),
    )
    run.search(Limits(trials=15))
    subject = run.prepared.subject
    base = subject.discovery.space.base_cost
    for trial in run.study.trials:
        network = compact(subject.model, subject.discovery.space.groups, trial.mask).eval()
        with FlopCounterMode(display=False) as counter:
            network(subject.example[0])
        params = sum(parameter.numel() for parameter in network.parameters())
        assert counter.get_total_flops() / 2 == trial.cost.flops
        assert trial.cost.flops <= 0.6 * base.flops
        assert params == trial.cost.params <= 0.65 * base.params
    run.close()


@pytest.mark.slow
def test_searched_networks_beat_the_uniform_baseline_over_seeds(tmp_path: Path) -> None:
    """What the README's table says; at 50 % both end at the base network's accuracy."""
    command = [sys.executable, ROOT / "scripts" / "bench_digits.py", "--runs", tmp_path]
    subprocess.run(command, check=True)
    tuned: dict[str, list[float]] = {SEARCHED: [], PLAIN: []}
    for budget in BUDGETS:
        for seed in range(5):
            row = json.loads(
                (tmp_path / f"{budget.strip('%')}-{seed}" / "result.json").read_text()
            )
            built, distilled = (
                {name: 100 * float(np.mean(right)) for name, right in row["right"][stage].items()}
                for stage in ("built", "distilled")
            )
            assert built["base"] >= 97.5
            assert built[SEARCHED] > built[PLAIN]
            allowed = {"50%": 1.0, "25%": 2.5}[budget]
            assert distilled[SEARCHED] >= built["base"] - allowed
            assert row["flops"] <= float(budget.strip("%")) / 100
            if budget == "25%":
                for name, own in tuned.items():
                    own.append(distilled[name])
    assert np.mean(tuned[SEARCHED]) > np.mean(tuned[PLAIN])
