"""Few Hessian-vector products: nothing but `hap` itself depends on their number."""

import pytest

from evosearch.criteria import hessian


@pytest.fixture(autouse=True)
def _few_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hessian, "PROBES", 4)
