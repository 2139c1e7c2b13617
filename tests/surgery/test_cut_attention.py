"""The forward passes of cut attention against those of torch and torchvision, while whole."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention

from evosearch.surgery.compaction import compact, masked
from evosearch.surgery.cut_attention import projections_called
from tests.surgery.cases import discovered, random_masks, tensors

IMAGES, TOKENS, HEADS = 3, 5, 4
CAUSAL = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
PADDED = torch.arange(TOKENS) >= torch.tensor([[5], [3], [4]])
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "without weights": {"need_weights": False},
    "weights by head": {"average_attn_weights": False},
    "causal": {"attn_mask": CAUSAL, "is_causal": True},
    "padded": {"key_padding_mask": PADDED, "need_weights": False},
    "causal, padded": {"attn_mask": CAUSAL, "key_padding_mask": PADDED},
    "by head": {"attn_mask": torch.linspace(-1, 1, IMAGES * HEADS * TOKENS**2).double()},
}
OPTIONS["by head"]["attn_mask"] = OPTIONS["by head"]["attn_mask"].view(-1, TOKENS, TOKENS)


def drawn(module: nn.Module) -> Any:
    random = torch.Generator().manual_seed(0)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.4, generator=random)
    return module


def require_same(module: nn.Module, *inputs: Tensor, **options: Any) -> None:
    theirs = tensors(module(*inputs, **options))
    with projections_called(module):
        ours = tensors(module(*inputs, **options))
    assert "forward" not in vars(module)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_heads_of_torch(batch_first: bool, options: dict[str, Any]) -> None:
    shape = (IMAGES, TOKENS) if batch_first else (TOKENS, IMAGES)
    x = torch.randn(*shape, 8, dtype=torch.float64)
    require_same(
        drawn(nn.MultiheadAttention(8, HEADS, batch_first=batch_first)), x, x, x, **options
    )
    other = torch.randn(*shape, 6, dtype=torch.float64)
    across = nn.MultiheadAttention(8, HEADS, kdim=6, vdim=6, bias=False, batch_first=batch_first)
    require_same(drawn(across), x, other, other, **options)


def test_one_image_without_a_batch() -> None:
    x, y = torch.randn(2, TOKENS, 8, dtype=torch.float64)
    require_same(drawn(nn.MultiheadAttention(8, HEADS)), x, y, y)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("sides", [(8, 8), (7, 9), (4, 4), (12, 4)])
def test_windows_of_torchvision(sides: tuple[int, int], shift: int) -> None:
    module = drawn(ShiftedWindowAttention(8, [4, 4], [shift, shift], HEADS))
    require_same(module, torch.randn(2, *sides, 8, dtype=torch.float64))


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_a_network_that_lost_heads_is_copied_and_sent_to_workers(name: str) -> None:
    found = discovered(name)
    space = found.discovery.space
    mask = random_masks(space, 1)[0]
    small = compact(found.model, space.groups, mask)
    with torch.no_grad(), masked(found.model, space.groups, found.discovery.layers, mask) as whole:
        expected = whole(*found.example)
        for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):  # noqa: S301
            for parameter in small.parameters():
                parameter.fill_(torch.nan)
            torch.testing.assert_close(other(*found.example), expected)
            small = other
