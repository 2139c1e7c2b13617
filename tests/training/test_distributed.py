"""What a training in shares of its batches comes to."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from evosearch.errors import InputError
from evosearch.training import distributed
from evosearch.training.distributed import (
    SharedGradient,
    process_count,
    require_shares,
    synchronised_norms,
)
from tests.training import twoprocesses

ROOT = Path(__file__).parents[2]


@pytest.fixture
def one_process() -> Iterator[None]:
    """A group of this process alone, whose sums are those of its own shares."""
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """A penalty, a cut on the way that both have to agree on; batches whole and in pieces.

    Shares are of five images, and in pieces of two and three.
    """
    (tmp_path / "alone").mkdir()
    twoprocesses.main(tmp_path / "alone")
    alone = json.loads((tmp_path / "alone" / "0.json").read_text())
    ended = subprocess.run(
        [*twoprocesses.IN_TWO, "tests.training.twoprocesses", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    for name, found in first.items():
        assert found["sizes"] == alone[name]["sizes"]
        assert found["sizes"]["conv1.weight"] == [5, 1, 3, 3]
        assert found["losses"] == pytest.approx(alone[name]["losses"], rel=1e-5)
    assert alone["pieces"]["losses"] != pytest.approx(alone["whole"]["losses"], rel=1e-4)


def test_gradients_meet_after_the_last_piece(
    one_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of x = 1 to 5 with loss w x^2 the gradient is 11; until then each process has its own."""
    model, met = nn.Linear(1, 1, bias=False), []
    shared = SharedGradient(model, lambda x, _: (model(x) * x).mean(), list)
    real = DistributedDataParallel.no_sync

    def no_sync(parallel: DistributedDataParallel) -> Any:
        met.append(False)
        return real(parallel)

    monkeypatch.setattr(DistributedDataParallel, "no_sync", no_sync)
    images = torch.arange(1.0, 6).view(5, 1)
    for piece, is_last in ((slice(0, 2), False), (slice(2, 4), False), (slice(4, 5), True)):
        given = images[piece]
        shared.add(given, torch.zeros(len(given)), len(given) / 5, is_last=is_last)
    assert model.weight.grad.item() == pytest.approx(11.0, rel=1e-6)
    assert met == [False, False]


@pytest.mark.parametrize("momentum", [0.3, None])
def test_synchronised_norms_are_torchs(one_process: None, momentum: float | None) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.BatchNorm2d(3, momentum=momentum), nn.BatchNorm2d(3, momentum=momentum)
    for norm in (ours, theirs):
        nn.init.constant_(norm.weight, 1.5)
    for _ in range(2):
        features = torch.randn(4, 3, 5, 5) + 2
        given = [features.clone().requires_grad_() for _ in range(2)]
        with synchronised_norms(ours):
            found = ours(given[0])
        expected = theirs(given[1])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        for output in (found, expected):
            output.pow(3).sum().backward()
        torch.testing.assert_close(given[0].grad, given[1].grad, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)
    ours.eval(), theirs.eval()
    with synchronised_norms(ours):
        assert torch.equal(ours(features), nn.BatchNorm2d.forward(ours, features))
    assert "forward" not in vars(ours)


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert process_count() == 1
    require_shares(3, 3, 1, has_norms=True)
    monkeypatch.setattr(distributed, "process_count", lambda: 4)
    require_shares(80, 10, 1, has_norms=True)
    with pytest.raises(InputError, match="batches of 7 images for 4 processes: each needs two"):
        require_shares(79, 10, 1, has_norms=True)
    require_shares(320, 10, 4, has_norms=True)
    with pytest.raises(InputError, match=r"pieces of 7 images for 4 processes: .* lower accumul"):
        require_shares(319, 10, 4, has_norms=True)
