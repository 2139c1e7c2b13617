"""The steps to add a tracing rule, followed as they are written."""

import re
from pathlib import Path

import pytest
import torch

from evosearch.surgery import tracing
from evosearch.surgery.discovery import Discovery, GroupRules, discover
from evosearch.surgery.tracing import export
from tests.surgery.operators import between

README = Path(tracing.__file__).parent / "README.md"


def found_around_a_turn(dims: tuple[int, int]) -> Discovery:
    torch.manual_seed(0)
    model = between(lambda net, x: torch.rot90(x, 1, dims))().eval()
    return discover(model, (torch.randn(2, 3, 8, 8),), GroupRules(), seed=0)


def frozen(found: Discovery) -> dict[str, str]:
    return {part.name: part.reason for part in found.space.frozen}


def test_the_rule_in_the_readme_frees_channels_and_is_proven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "RULES", dict(export.RULES))
    before = found_around_a_turn((2, 3))
    assert [group.name for group in before.space.groups] == ["after"]
    assert frozen(before)["stem"] == "operator rot90"

    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert code is not None
    exec(compile(code[1], str(README), "exec"), {})

    after = found_around_a_turn((2, 3))
    assert {group.name: group.size for group in after.space.groups} == {"stem": 8, "after": 6}
    assert all(proof.error <= 1e-9 and proof.effect > 1e-3 for proof in after.proofs)
    # A turn into the channels' dimension moves channels to positions: nothing to vouch for.
    assert frozen(found_around_a_turn((1, 2)))["stem"] == "operator rot90 over channels"


def test_what_the_readme_names_exists() -> None:
    folder = README.parents[2]
    for name in re.findall(r"`([\w/]+\.py)`", README.read_text()):
        places = [README.parent / name, folder / name, folder.parent / name]
        assert any(place.is_file() for place in places), name
    for name in re.findall(r"`walk\.(\w+)`", README.read_text()):
        assert hasattr(export.Walk, name), name
