"""Artifacts: bit-equal after a reload, in a fresh process, without search code or pickle."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evosearch.errors import InputError
from evosearch.export.artifact import Artifact
from evosearch.models.zoo import digits_resnet
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.tracing.export import trace

SECTION = {
    "build": "evosearch.models.zoo:digits_resnet",
    "input": [1, 8, 8],
    "kwargs": {"width": 8},
}


class Tied(nn.Module):
    """A depthwise convolution, and one linear layer that is called under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.BatchNorm2d(6)
        self.mix = nn.Conv2d(6, 6, 1)
        self.again = self.mix
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.depthwise(self.stem(x)))
        return self.head(self.again(self.mix(x)).mean((2, 3)))


def saved(tmp_path: Path, model: nn.Module) -> tuple[Artifact, nn.Module]:
    groups = trace(model, (torch.randn(2, 1, 8, 8),)).groups
    rng = np.random.default_rng(0)
    mask = Mask({g.name: rng.permutation(g.size) < -(-g.size // 2) for g in groups})
    network = compact(model, groups, mask).eval()
    artifact = Artifact.save(
        tmp_path / "artifact",
        network=network,
        base=model,
        mask=mask,
        model_section=SECTION,
        card={"name": "a test"},
    )
    return artifact, network


@pytest.mark.parametrize("build", [lambda: digits_resnet(width=8), Tied])
def test_a_reloaded_network_is_bit_equal(build: type[nn.Module], tmp_path: Path) -> None:
    artifact, network = saved(tmp_path, build())
    images = torch.randn(7, 1, 8, 8)
    loaded = Artifact.open(artifact.folder).load(build)
    assert torch.equal(loaded(images), network(images))
    assert {n: type(m) for n, m in loaded.named_modules()} == {
        n: type(m) for n, m in network.named_modules()
    }
    assert sum(p.numel() for p in loaded.parameters()) == sum(
        p.numel() for p in network.parameters()
    )
    loaded.train()
    loaded(images).sum().backward()


def test_the_exported_loader_needs_torch_and_safetensors_only(tmp_path: Path) -> None:
    artifact, network = saved(tmp_path, digits_resnet(width=8))
    artifact.export(tmp_path / "out")
    images = torch.randn(7, 1, 8, 8)
    save_file({"images": images}, tmp_path / "images.safetensors")
    program = """
import pickle, sys
sys.path.insert(0, "out")
from load import rebuild
from safetensors.torch import load_file, save_file
assert not any(name.startswith("evosearch") for name in sys.modules)
from evosearch.models.zoo import digits_resnet
for name in ("optuna", "deap", "evosearch.run", "evosearch.strategies"):
    assert name not in sys.modules
pickle.load = pickle.loads = pickle.Unpickler = None
from evosearch.models.zoo import digits_resnet
network = rebuild(digits_resnet(width=8), "out")
save_file({"logits": network(load_file("images.safetensors")["images"])}, "logits.safetensors")
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    logits = load_file(tmp_path / "logits.safetensors")["logits"]
    assert torch.equal(logits, network(images).detach())


def test_export_refuses_a_folder_that_exists(tmp_path: Path) -> None:
    artifact, _ = saved(tmp_path, digits_resnet(width=8))
    with pytest.raises(InputError, match="exists already"):
        artifact.export(tmp_path)


def test_what_is_no_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an artifact"):
        Artifact.open(tmp_path)
    artifact, _ = saved(tmp_path, digits_resnet(width=8))
    with pytest.raises(InputError, match="has a module 'conv1', the model has none"):
        artifact.load(lambda: nn.Linear(3, 3))
    (artifact.folder / "plan.json").write_text("{")
    with pytest.raises(InputError, match="malformed"):
        Artifact.open(artifact.folder)
    (artifact.folder / "plan.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="format 1"):
        Artifact.open(artifact.folder)


def test_a_plan_cannot_reach_outside_its_folder_or_run_code(tmp_path: Path) -> None:
    """Names in a plan are module names and sizes, never paths; hostile ones are refused."""
    artifact, _ = saved(tmp_path, digits_resnet(width=8))
    plan = json.loads((artifact.folder / "plan.json").read_text())
    plan["modules"]["../../etc"] = {"out_channels": 3}
    (artifact.folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(InputError, match=r"\.\./\.\./etc"):
        Artifact.open(artifact.folder).load(lambda: digits_resnet(width=8))
