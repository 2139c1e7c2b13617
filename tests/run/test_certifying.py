"""An accuracy drop from the search to the pick: what is certified is what is shipped."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import evosearch
from evosearch.data import contents, splits
from evosearch.data.sources import load_pools
from evosearch.data.splits import load_search_data
from evosearch.models.build import build_model
from evosearch.run.references import GLOBAL, PLAIN
from evosearch.run.reopening import reopen
from evosearch.strategies.two_step import TwoStep
from evosearch.study.accuracy_certificate import AccuracyCertificate
from evosearch.study.certificate import load_certificates, load_claims
from evosearch.tasks.scoring import score
from evosearch.training.distillation import distil
from tests.test_cli import QUICK


def counted(opened: list[str], name: str) -> Callable[..., Any]:
    """Returns what opens a source of data, and notes for whom."""

    def open_source(*arguments: Any) -> Any:
        opened.append(name)
        return load_pools(*arguments)

    return open_source


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> evosearch.Run:
    folder = tmp_path_factory.mktemp("certifying")
    text = QUICK.replace("search = 300", "search = 300\nconfirmation = 250")
    (folder / "quick.toml").write_text(text.replace("epochs = 3", "epochs = 12"))
    return evosearch.search(
        folder / "quick.toml", accuracy_drop=6.0, trials=24, seed=0, out=folder / "run"
    )


def test_the_certificate_is_of_the_finished_networks_on_unseen_images(run: evosearch.Run) -> None:
    (certificate,) = load_certificates(run.folder)
    assert isinstance(certificate, AccuracyCertificate)
    assert certificate.images == 250
    assert certificate.attempts
    assert certificate.trial is not None
    assert run.pick().trial == certificate.trial
    prepared = reopen(run.folder, run.study.header, lambda _: None)
    split = load_search_data(prepared.config.space.data).confirmation

    def right(network: torch.nn.Module) -> np.ndarray:
        with torch.inference_mode():
            return (network(split.images[:]).argmax(1) == split.labels).numpy()

    base = right(prepared.subject.model)
    for attempt in certificate.attempts:
        own = right(prepared.evaluator.builder.final(run.study.trials[attempt.trial].mask))
        assert attempt.drop.lost == (base & ~own).sum()
        assert attempt.drop.gained == (own & ~base).sum()


def test_finetuning_shows_what_the_search_adds_and_what_is_lost(
    run: evosearch.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    for module in (contents, splits):
        monkeypatch.setattr(module, "load_pools", counted(opened, module.__name__))
    alone = evosearch.finetune(run.folder, epochs=1)
    # The data of the search, the identity of the test images, and at last these.
    assert opened == [splits.__name__, contents.__name__, splits.__name__]
    monkeypatch.undo()
    names = [network.name for network in alone.networks]
    plan, budget = alone.plan.name, f"cost of {alone.plan.name}"
    assert names == [
        "base network",
        f"{PLAIN}, {budget}",
        f"{GLOBAL}, {budget}",
        plan,
        f"{plan}, distilled 1 epochs",
    ]
    assert alone.networks[2].cost.macs <= alone.plan.cost.macs
    beside = evosearch.finetune(run.folder, epochs=1, baselines=True)
    names.insert(3, f"{GLOBAL}, {budget}, distilled 1 epochs")
    assert [network.name for network in beside.networks] == names
    assert beside.networks[-1].test == alone.networks[-1].test  # training one leaves the other be
    assert beside.test_opened == alone.test_opened + 1

    prepared = reopen(run.folder, run.study.header, lambda _: None)
    subject, rival = prepared.subject, beside.networks[2]
    channels = TwoStep(subject.discovery.space, prepared.knowledge.gram)
    widths = np.array(list(rival.mask.widths.values()))
    assert rival.mask == channels.mask(widths)
    network = prepared.evaluator.builder.final(rival.mask)
    assert rival.search == score(network, subject.data.search)
    config = prepared.config.space.finetune.model_copy(update={"epochs": 1})
    distil(subject.model, network, subject.data.train, subject.data.search, config, 0)
    assert beside.networks[3].search == score(network, subject.data.search)

    assert beside.confirmed is not None
    split = subject.data.confirmation
    tuned = beside.artifact.load(lambda: build_model(prepared.config.space.model))
    with torch.inference_mode():
        right = [
            (n(split.images[:]).argmax(1) == split.labels).numpy() for n in (subject.model, tuned)
        ]
    drop = beside.confirmed.drop
    assert drop.lost == (right[0] & ~right[1]).sum()
    assert drop.gained == (right[1] & ~right[0]).sum()
    # The certificate of the search is a claim on these images too; the same network is the same.
    together = "2 such claims on these images, which hold together with 90%)"
    assert str(beside.confirmed).endswith(f"(95% confidence; the run has made {together}")
    assert (
        f"- Fine-tuned, it {beside.confirmed}."
        in (beside.artifact.folder / "README.md").read_text()
    )
    assert load_claims(run.folder)[1:] == (alone.confirmed,) == (beside.confirmed,)


def test_going_on_without_a_new_trial_claims_nothing_new(run: evosearch.Run) -> None:
    before = load_certificates(run.folder)
    evosearch.resume(run.folder, trials=24)
    assert load_certificates(run.folder) == before
