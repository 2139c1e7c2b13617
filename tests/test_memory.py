"""Batches that do not fit are halved; what is remembered, and what is no lack of memory."""

import pytest
import torch

from evosearch import memory
from evosearch.errors import MemoryExhausted
from evosearch.memory import is_out_of_memory, largest_fitting, memory_needed

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_fitting", {})


def worker(most: int, tried: list[int], error: type[BaseException] = torch.OutOfMemoryError):
    def work(size: int) -> str:
        tried.append(size)
        if size > most:
            raise error("CUDA out of memory")
        return f"done by {size}"

    return work


def test_batches_are_halved_until_they_fit_and_stay_so() -> None:
    tried: list[int] = []
    assert largest_fitting("scoring", GPU, 1024, worker(300, tried)) == "done by 256"
    assert largest_fitting("scoring", GPU, 1024, worker(300, tried)) == "done by 256"
    assert largest_fitting("scoring", GPU, 100, worker(300, tried)) == "done by 100"
    assert tried == [1024, 512, 256, 256, 100]


def test_every_purpose_and_device_has_its_own_size() -> None:
    tried: list[int] = []
    largest_fitting("scoring", GPU, 64, worker(20, tried))
    largest_fitting("calibration", GPU, 64, worker(64, tried))
    largest_fitting("scoring", CPU, 64, worker(64, tried))
    assert tried == [64, 32, 16, 64, 64]


@pytest.mark.parametrize("least", [1, 2])
def test_a_least_batch_that_does_not_fit_is_one_line(least: int) -> None:
    tried: list[int] = []
    with pytest.raises(MemoryExhausted, match=rf"^scoring on cuda:1: a batch of {least} does not"):
        largest_fitting("scoring", GPU, 3, worker(0, tried), least=least)
    assert tried == [3, least]


def test_other_errors_are_not_tried_again() -> None:
    tried: list[int] = []
    with pytest.raises(ValueError, match="CUDA"):
        largest_fitting("scoring", GPU, 64, worker(0, tried, ValueError))
    assert tried == [64]


def test_what_a_lack_of_memory_is() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**60)  # no machine has it
    assert is_out_of_memory(real.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    with pytest.raises(MemoryExhausted, match=r"^training: not enough memory$"):
        _allocate()
    with pytest.raises(KeyError), memory_needed("training"):
        raise KeyError


@memory_needed("training")
def _allocate() -> None:
    torch.empty(2**60)
