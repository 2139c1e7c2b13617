"""The steps of `evosearch/criteria/README.md`, followed as they are written."""

import copy
import re

import pytest
import torch

from evosearch import criteria
from evosearch.criteria import CRITERIA
from evosearch.criteria.scored_network import ScoredNetwork
from tests.criteria.toys import scores
from tests.readmes import ROOT, code_blocks
from tests.surgery.cases import discovered


def test_the_example_is_a_criterion(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = code_blocks("criteria", "python")
    assert len(code.splitlines()) <= 18
    before = set(CRITERIA)
    monkeypatch.setattr(criteria, "CRITERIA", CRITERIA | {})
    exec(compile(code, "README.md", "exec"), {})
    assert set(criteria.CRITERIA) - before == {"peak"}

    found = discovered("residual")
    network = ScoredNetwork(
        model=copy.deepcopy(found.model).eval(),
        groups=found.discovery.space.groups,
        layers=found.discovery.layers,
    )
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(6, 3, 8, 8, generator=generator)
    given = scores("peak", network, [(images, torch.arange(6) % 5)])
    for group in network.groups:
        assert given[group.name].shape == (group.size,)
        assert len(set(given[group.name])) > 1


def test_the_base_classes_are_where_the_table_says() -> None:
    text = (ROOT / "criteria" / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)\.py` \| `(\w+)\(", text, re.MULTILINE)
    assert len(rows) == 4
    for base, file, method in rows:
        kind = getattr(__import__(f"evosearch.criteria.{file}", fromlist=[base]), base)
        assert kind.__abstractmethods__ == {method}
