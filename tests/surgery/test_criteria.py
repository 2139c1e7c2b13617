"""Importance scores by hand."""

import numpy as np
import torch
from torch import Tensor, nn

from evosearch.surgery.criteria import l1
from evosearch.surgery.tracing import trace


class Stream(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 2, 1, bias=False)
        self.b = nn.Conv2d(2, 2, 1, bias=False)
        self.c = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.c((x + self.b(x)).mean((2, 3)))


def test_l1_averages_the_writers_of_a_stream() -> None:
    model = Stream()
    with torch.no_grad():
        model.a.weight.copy_(torch.tensor([[1.0], [-2.0]]).reshape(2, 1, 1, 1))
        model.b.weight.copy_(torch.tensor([[3.0, -1.0], [0.0, 0.5]]).reshape(2, 2, 1, 1))
    found = trace(model, (torch.randn(2, 1, 3, 3),))
    scores = l1(model, found.groups, found.layers)
    assert list(scores) == ["a"]
    np.testing.assert_allclose(scores["a"], [(1 + 4) / 2, (2 + 0.5) / 2])
