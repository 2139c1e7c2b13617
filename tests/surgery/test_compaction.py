"""The compacted network equals the masked one, and the user's own is left alone."""

import numpy as np
import pytest
import torch
from torch import nn

from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact, masked
from tests.surgery.cases import CASES, Found, discovered, random_masks, tensors


def halves(found: Found) -> Mask:
    """Keeps every other channel."""
    return Mask({g.name: np.arange(g.size) % 2 == 0 for g in found.discovery.space.groups})


def compacted(found: Found, mask: Mask) -> nn.Module:
    return compact(found.model, found.discovery.space.groups, mask)


@pytest.mark.parametrize("name", CASES)
def test_the_compacted_network_equals_the_masked_one(name: str) -> None:
    found = discovered(name)
    space, layers = found.discovery.space, found.discovery.layers
    moved = False
    with torch.no_grad():
        whole = tensors(found.model(*found.example))
        for mask in random_masks(space, 5):
            with masked(found.model, space.groups, layers, mask) as reference:
                expected = tensors(reference(*found.example))
            actual = tensors(compacted(found, mask)(*found.example))
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
            moved |= any((a - b).abs().max() > 1e-3 for a, b in zip(actual, whole, strict=True))
    assert moved


def test_keeping_everything_changes_nothing() -> None:
    found = discovered("residual")
    same = compacted(found, found.discovery.space.full_mask())
    assert torch.equal(same(*found.example), found.model(*found.example))


def test_classes_names_modes_and_attributes() -> None:
    found = discovered("depthwise")
    found.model[1].train()
    try:
        small = compacted(found, halves(found))
    finally:
        found.model[1].eval()
    assert [(n, type(m)) for n, m in small.named_modules()] == [
        (n, type(m)) for n, m in found.model.named_modules()
    ]
    assert small[1].training
    assert not small[0].training
    assert (small[0].in_channels, small[0].out_channels) == (3, 4)
    assert small[1].num_features == 4
    assert (small[3].in_channels, small[3].out_channels, small[3].groups) == (4, 4, 4)
    assert (small[6].in_channels, small[6].out_channels, small[6].groups) == (4, 8, 4)
    assert (small[7].in_channels, small[7].out_channels) == (8, 3)
    assert (small[9][2].in_features, small[9][2].out_features) == (3, 5)


def test_kept_values_are_the_users_own() -> None:
    found = discovered("plain")
    small = compacted(found, halves(found))
    state = found.model.state_dict()
    assert torch.equal(small.conv1.weight, state["conv1.weight"][[0, 2]])
    assert torch.equal(small.bn1.running_var, state["bn1.running_var"][[0, 2]])
    assert torch.equal(small.conv2.weight, state["conv2.weight"][[0, 2, 4]][:, [0, 2]])
    pixels = [16 * channel + pixel for channel in (0, 2, 4) for pixel in range(16)]
    assert torch.equal(small.linear.weight, state["linear.weight"][:, pixels])
    assert torch.equal(small.linear.bias, state["linear.bias"])


@pytest.mark.parametrize("name", CASES)
def test_the_model_is_neither_changed_nor_shared_with(name: str) -> None:
    found = discovered(name)
    before = {name: tensor.clone() for name, tensor in found.model.state_dict().items()}
    small = compacted(found, halves(found))
    with masked(found.model, found.discovery.space.groups, found.discovery.layers, halves(found)):
        pass
    storages = {t.untyped_storage().data_ptr() for t in found.model.state_dict().values()}
    assert all(t.untyped_storage().data_ptr() not in storages for t in small.state_dict().values())
    with torch.no_grad():
        for tensor in small.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(before[name], t) for name, t in found.model.state_dict().items())


def test_masking_is_undone_after_an_error() -> None:
    found = discovered("plain")
    before = {name: tensor.clone() for name, tensor in found.model.state_dict().items()}
    groups, layers = found.discovery.space.groups, found.discovery.layers
    with pytest.raises(KeyError), masked(found.model, groups, layers, halves(found)):
        raise KeyError
    assert all(torch.equal(before[name], t) for name, t in found.model.state_dict().items())


def test_hooks_dtype_and_frozen_parameters_come_along() -> None:
    case = CASES["residual"]
    model = case.model().to(torch.bfloat16)
    model.conv1.weight.requires_grad_(requires_grad=False)
    seen: list[type[nn.Module]] = []
    model.conv1.register_forward_hook(lambda module, *_: seen.append(type(module)))
    found = discovered("residual")
    small = compact(model, found.discovery.space.groups, halves(found))
    small(found.example[0].bfloat16())
    assert seen == [nn.Conv2d]
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert [n for n, p in small.named_parameters() if not p.requires_grad] == ["conv1.weight"]


def test_a_shared_module_stays_shared() -> None:
    model = CASES["shared_module"].model()
    model.alias = model.shared
    found = discovered("shared_module")
    small = compact(model, found.discovery.space.groups, halves(found))
    assert small.alias is small.shared
    assert small.alias.weight is small.shared.weight


@pytest.mark.parametrize("name", CASES)
def test_the_compacted_network_trains_and_exports(name: str) -> None:
    found = discovered(name)
    small = compacted(found, halves(found)).train()
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    sum(tensor.square().mean() for tensor in tensors(small(*found.example))).backward()
    trained = [p for p in small.parameters() if p.grad is not None]
    assert len(trained) >= 4
    assert all(p.grad.shape == p.shape for p in trained)
    before = [p.detach().clone() for p in small.parameters()]
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, small.parameters(), strict=True))
    program = torch.export.export(small.eval(), found.example)
    torch.testing.assert_close(
        tensors(program.module()(*found.example)), tensors(small(*found.example))
    )


def test_a_state_dict_fits_a_rebuilt_network_strictly() -> None:
    found = discovered("squeeze_excite")
    mask = halves(found)
    small = compacted(found, mask)
    fresh = compact(CASES["squeeze_excite"].build().eval(), found.discovery.space.groups, mask)
    fresh.load_state_dict(small.state_dict(), strict=True)
    assert torch.equal(fresh(*found.example), small(*found.example))
