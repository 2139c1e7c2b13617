"""What makes a GPU repeat its results, set where a device is chosen."""

import os
from collections.abc import Iterator

import pytest
import torch

from evosearch.machine import environment, make_deterministic, resolve_device


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts everything back that a GPU is set to."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = matmul.fp32_precision, convolution.fp32_precision
    matmul.fp32_precision = convolution.fp32_precision = "tf32"
    yield
    matmul.fp32_precision, convolution.fp32_precision = before
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def is_set() -> list[bool]:
    return [
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        not torch.backends.cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG") == ":4096:8",
        torch.backends.cuda.matmul.fp32_precision == "ieee",
        torch.backends.cudnn.conv.fp32_precision == "ieee",
    ]


@pytest.mark.usefixtures("flags")
def test_a_gpu_is_made_deterministic_and_the_record_says_so() -> None:
    assert not environment(1)["deterministic"]
    make_deterministic("cuda:1")
    assert all(is_set())
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    found = environment(1)
    assert found["deterministic"] is True
    assert found["cublas_workspace"] == ":4096:8"


@pytest.mark.usefixtures("flags")
def test_a_cpu_is_left_alone() -> None:
    assert resolve_device("cpu") == "cpu"
    assert not any(is_set())


@pytest.mark.usefixtures("flags")
def test_a_device_is_made_deterministic_where_it_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)  # as if there were one
    assert resolve_device("auto") == "cuda"
    assert all(is_set())
