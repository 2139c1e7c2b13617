"""An accuracy drop from the search to the pick: what is certified is what is shipped."""

import numpy as np
import pytest
import torch

import evosearch
from evosearch.data.splits import load_search_data
from evosearch.run.reopening import reopen
from evosearch.study.accuracy_certificate import AccuracyCertificate
from evosearch.study.certificate import load_certificates
from tests.test_cli import QUICK


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


def test_going_on_without_a_new_trial_claims_nothing_new(run: evosearch.Run) -> None:
    before = load_certificates(run.folder)
    evosearch.resume(run.folder, trials=24)
    assert load_certificates(run.folder) == before
