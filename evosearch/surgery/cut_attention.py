"""Forward passes of attention modules that may have fewer heads than their embedding has room for.

The code of torch's and torchvision's modules takes a head to be as large as the embedding divided
by the number of heads, which does not hold once heads are cut. A module that has lost heads stays
what it is but for its forward pass, which takes the size of a head from the output projection.
Here output projections are called as the modules that they are, so that hooks see their inputs.

A copy of this file lies beside every exported artifact: it needs torch alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

APART = -100.0
"""Added to the score of two pixels that a shift put into one window, as torchvision does."""


def fit_attention(module: nn.Module) -> None:
    """Fits a module to its tensors, where it is one of attention that lost heads or inputs."""
    forward = _forward_of(module)
    if forward is None:
        return
    projection: Any = module.out_proj if isinstance(module, nn.MultiheadAttention) else module.proj
    embedding, heads = projection.weight.shape
    if isinstance(module, nn.MultiheadAttention):
        module.embed_dim = embedding
        # What calls the module reads this before it takes a shorter way around its code.
        module._qkv_same_embed_dim = module.in_proj_weight is not None and heads == embedding
    if heads != embedding:
        module.forward = partial(forward, module)


@contextmanager
def projections_called(model: nn.Module) -> Iterator[None]:
    """Lets the attention modules of a model, whole ones too, call their output projections."""
    changed = call_projections(model)
    try:
        yield
    finally:
        call_as_before(changed)


def call_projections(model: nn.Module) -> list[nn.Module]:
    """Does what `projections_called` does, and returns what `call_as_before` is to undo."""
    changed = []
    for module in model.modules():
        forward = _forward_of(module)
        if forward is not None and "forward" not in vars(module):
            module.forward = partial(forward, module)
            changed.append(module)
    return changed


def call_as_before(changed: list[nn.Module]) -> None:
    """Gives modules their own forward pass again, but for those that were cut meanwhile."""
    for module in changed:
        del module.forward
        fit_attention(module)


def _forward_of(module: nn.Module) -> Callable[..., Any] | None:
    """Returns the forward pass here of a module's class; a subclass may have another one."""
    if isinstance(module, nn.MultiheadAttention) and (
        module.bias_k is not None or module.add_zero_attn
    ):
        return None
    kind = type(module)
    return _FORWARDS.get(f"{kind.__module__}.{kind.__qualname__}")


def _multihead(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,  # noqa: ARG001 (a hint beside the mask)
) -> tuple[Tensor, Tensor | None]:
    """Computes what `nn.MultiheadAttention` does, without bias for keys and zero attention."""
    batched = query.ndim == 3
    if not batched or not module.batch_first:
        batch = 1 if batched else 0
        made = {id(x): x.movedim(1, 0) if batch else x[None] for x in (query, key, value)}
        query, key, value = made[id(query)], made[id(key)], made[id(value)]
    q, k, v = (
        _split(x, -1, module.num_heads, -1).transpose(1, 2)
        for x in _projected(module, query, key, value)
    )
    mask = _additive(attn_mask, q)
    if mask is not None and mask.ndim == 3:
        mask = _split(mask, 0, -1, module.num_heads)
    padding = _additive(key_padding_mask, q)
    if padding is not None:
        padding = padding.reshape(len(q), 1, 1, -1)
        mask = padding if mask is None else mask + padding
    dropout = module.dropout if module.training else 0.0
    weights = None
    if need_weights:
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
        found = weights @ v
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        found = F.scaled_dot_product_attention(q, k, v, mask, dropout)
    output: Tensor = module.out_proj(found.transpose(1, 2).flatten(2))
    if not batched:
        return output[0], None if weights is None else weights[0]
    return output if module.batch_first else output.movedim(0, 1), weights


def _projected(
    module: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor
) -> Sequence[Tensor]:
    """Returns what heads compare and add up, `(images, tokens, heads x size)` each."""
    packed, bias = module.in_proj_weight, module.in_proj_bias
    if packed is not None and query is key is value:
        return _split(F.linear(query, packed, bias), -1, 3, -1).unbind(-2)
    weights = (
        (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        if packed is None
        else packed.chunk(3)
    )
    biases = [None] * 3 if bias is None else bias.chunk(3)
    return [
        F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)
    ]


def _split(x: Tensor, dim: int, *sizes: int) -> Tensor:
    """Returns a tensor with one dimension in parts."""
    found: Tensor = x.unflatten(dim, sizes)  # type: ignore[no-untyped-call]
    return found


def _additive(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """Returns a mask as what is added to scores; a boolean one is true where nothing is read."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)


def _windowed(module: Any, x: Tensor) -> Tensor:
    """Computes what torchvision's `ShiftedWindowAttention` does.

    Args:
        module: of that class.
        x: `(images, height, width, channels)`.
    """
    bias = module.get_relative_position_bias()  # (1, heads, tokens, tokens)
    images, height, width, _ = x.shape
    rows, columns = window = module.window_size
    x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
    sides = x.shape[1:3]
    shifts = [
        0 if extent >= side else shift
        for extent, side, shift in zip(window, sides, module.shift_size, strict=True)
    ]
    if any(shifts):
        x = x.roll([-shift for shift in shifts], (1, 2))
    projected = module.qkv(_cut_up(x, rows, columns).flatten(3, 4).flatten(0, 2))
    projected = _split(projected, -1, 3, module.num_heads, -1)
    q, k, v = projected.permute(2, 0, 3, 1, 4).unbind(0)
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1) + bias
    if any(shifts):
        apart = _apart(sides, window, shifts, scores)
        scores = (_split(scores, 0, images, -1) + apart[:, None]).flatten(0, 1)
    weights = F.dropout(scores.softmax(-1), module.attention_dropout, module.training)
    x = module.proj((weights @ v).transpose(1, 2).flatten(2))
    x = F.dropout(x, module.dropout, module.training)
    x = x.view(images, sides[0] // rows, sides[1] // columns, rows, columns, -1)
    x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    if any(shifts):
        x = x.roll(shifts, (1, 2))
    return x[:, :height, :width].contiguous()


def _cut_up(x: Tensor, rows: int, columns: int) -> Tensor:
    """Returns `(images, height, width, ...)` as `(images, down, across, rows, columns, ...)`."""
    return _split(_split(x, 1, -1, rows), 3, -1, columns).transpose(2, 3)


def _apart(
    sides: Sequence[int], window: Sequence[int], shifts: Sequence[int], like: Tensor
) -> Tensor:
    """Returns what keeps pixels apart that a shift put into one window from two sides.

    Returns:
        `(windows, tokens, tokens)`.
    """
    bands = []
    for side, extent, shift in zip(sides, window, shifts, strict=True):
        place = torch.arange(side, device=like.device)
        bands.append((place >= side - extent).int() + (place >= side - shift).int())
    regions = (
        _cut_up((bands[0][:, None] * 3 + bands[1])[None], *window).flatten(3, 4).flatten(0, 2)
    )
    return (regions[:, :, None] != regions[:, None]).to(like.dtype) * APART


_FORWARDS: dict[str, Callable[..., Any]] = {
    "torch.nn.modules.activation.MultiheadAttention": _multihead,
    "torchvision.models.swin_transformer.ShiftedWindowAttention": _windowed,
}
