"""The recipes for clusters, as the README has them."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.readmes import code_blocks


def test_the_recipe_for_slurm_asks_for_workers_of_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    class Cluster:
        scheduler_address = "tcp://10.0.0.1:8786"

        def __init__(self, **settings: Any) -> None:
            asked.update(settings)

        def scale(self, *, jobs: int) -> None:
            asked["jobs"] = jobs

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=Cluster))
    shown: list[str] = []
    (recipe,) = code_blocks("engine", "python")
    exec(compile(recipe, "recipe", "exec"), {"input": shown.append})
    assert asked["cores"] == asked["processes"] == 1
    assert asked["jobs"] >= 2
    assert shown[0].endswith("--cluster tcp://10.0.0.1:8786")


def test_the_recipe_for_kubernetes_starts_workers_of_one_thread_and_one_gpu() -> None:
    yaml = pytest.importorskip("yaml", reason="dask, which brings it, is not installed")
    (recipe,) = code_blocks("engine", "yaml")
    cluster = yaml.safe_load(recipe)
    name, spec = cluster["metadata"]["name"], cluster["spec"]
    (worker,) = spec["worker"]["spec"]["containers"]
    assert worker["args"][:4] == ["dask", "worker", "--nthreads", "1"]
    assert worker["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert spec["worker"]["replicas"] >= 2
    (scheduler,) = spec["scheduler"]["spec"]["containers"]
    assert scheduler["image"] == worker["image"]
    service = spec["scheduler"]["service"]
    assert service["selector"]["dask.org/cluster-name"] == name
    exposed = {port["name"] for port in scheduler["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= exposed
