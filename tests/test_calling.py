"""What a model is called with: one tensor, several by place, or by name."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evosearch.calling import (
    Arguments,
    SeveralInputs,
    arguments,
    call,
    each,
    inputs_of,
    joined,
    pieces,
)

A, B = torch.arange(6.0).reshape(3, 2), torch.arange(3.0)


class Named(nn.Module):
    def forward(self, image: Tensor, *, mask: Tensor) -> Tensor:
        return image.sum(1) + 10 * mask


class Places(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first.sum(1) + 10 * second


class Dicts(nn.Module):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["image"].sum(1) + 10 * batch["mask"]


class Keywords(nn.Module):
    def forward(self, **batch: Tensor) -> Tensor:
        return batch["image"].sum(1) + 10 * batch["mask"]


BY_NAME = SeveralInputs(parts={"image": A, "mask": B})
EXPECTED = torch.tensor([1.0, 15.0, 29.0])


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Named(), BY_NAME),
        (Dicts(), BY_NAME),
        (Keywords(), BY_NAME),
        (Dicts(), {"image": A, "mask": B}),
        (Places(), SeveralInputs(parts=(A, B))),
        (Places(), (A, B)),
        (Named(), Arguments((A,), {"mask": B})),
    ],
)
def test_inputs_reach_the_forward_pass(model: nn.Module, inputs: Any) -> None:
    assert torch.equal(call(model, inputs), EXPECTED)


def test_one_tensor_is_the_only_argument() -> None:
    assert arguments(nn.Identity(), A) == Arguments((A,), {})
    assert inputs_of((A,)) is A


def test_several_inputs_are_chosen_moved_and_joined_as_one_tensor_is() -> None:
    assert len(BY_NAME) == 3
    for inputs in (A, BY_NAME, SeveralInputs(parts=(A, B))):
        first, second = pieces(inputs, 2)
        assert (len(first), len(second)) == (2, 1)
        again = joined([first.to("cpu"), second[torch.tensor([0])]])
        whole, back = arguments(Keywords(), inputs), arguments(Keywords(), again)
        tensors = [[*given.args, *given.kwargs.values()] for given in (whole, back)]
        assert all(torch.equal(own, other) for own, other in zip(*tensors, strict=True))
        doubled = each(lambda tensor: 2 * tensor, inputs)
        assert type(doubled) is type(inputs)
    assert torch.equal(call(Named(), each(lambda tensor: 2 * tensor, BY_NAME)), 2 * EXPECTED)
