"""Artifacts: bit-equal after a reload, in a fresh process, without search code or pickle."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evosearch.errors import EvosearchError, InputError
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


class Scaled(nn.Module):
    """A scale for each channel, in a buffer that a state dict leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 3)
        self.register_buffer("scale", torch.linspace(1, 3, 6), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu() * self.scale[:, None, None]
        return self.head(x.mean((2, 3)))


class Remembering(nn.Module):
    """A network that computes with an attribute, which no weights file has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 3)
        self.gain = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.head(self.stem(x).relu().mean((2, 3)))


def section_of(model: nn.Module) -> dict[str, Any]:
    kind = type(model).__name__
    own = {"build": f"tests.export.test_artifact:{kind}", "input": [1, 8, 8]}
    return own if kind in globals() else SECTION


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
        model_section=section_of(model),
        card={"name": "a test"},
    )
    return artifact, network


@pytest.mark.parametrize("build", [lambda: digits_resnet(width=8), Tied, Scaled])
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
    with pytest.raises(InputError, match="formats 1 and 2"):
        Artifact.open(artifact.folder)


def test_a_plan_cannot_reach_outside_its_folder_or_run_code(tmp_path: Path) -> None:
    """Names in a plan are module names and sizes, never paths; hostile ones are refused."""
    artifact, _ = saved(tmp_path, digits_resnet(width=8))
    plan = json.loads((artifact.folder / "plan.json").read_text())
    plan["modules"]["../../etc"] = {"out_channels": 3}
    (artifact.folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(InputError, match=r"\.\./\.\./etc"):
        Artifact.open(artifact.folder).load(lambda: digits_resnet(width=8))


def test_values_that_buffers_took_are_saved_whether_a_state_dict_has_them_or_not(
    tmp_path: Path,
) -> None:
    model = Scaled().eval()
    model.scale.mul_(2)
    artifact, network = saved(tmp_path, model)
    images = torch.randn(7, 1, 8, 8)
    loaded = artifact.load(Scaled)
    assert 0 < len(loaded.scale) < 6
    assert torch.equal(loaded(images), network(images))
    assert "scale" not in loaded.state_dict()


def test_a_network_that_is_not_whole_in_its_file_is_not_saved(tmp_path: Path) -> None:
    model = Remembering().eval()
    model.gain = 1.2
    with pytest.raises(EvosearchError, match="loaded in a fresh process, its outputs differ by"):
        saved(tmp_path, model)
    assert [*tmp_path.iterdir()] == []


def test_an_artifact_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    model = Remembering().eval()
    saved(tmp_path, model)
    before = (tmp_path / "artifact" / "weights.safetensors").read_bytes()
    model.gain = 1.2
    with pytest.raises(EvosearchError):
        saved(tmp_path, model)
    assert (tmp_path / "artifact" / "weights.safetensors").read_bytes() == before


def test_the_builder_may_lie_beside_the_space(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(width): return nn.Sequential(nn.Conv2d(1, width, 8), nn.Flatten())\n"
    )
    section = {"build": "net.py:make", "input": [1, 8, 8], "kwargs": {"width": 3}}
    network = nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()).eval()
    parts = {"network": network, "base": network, "mask": Mask({}), "card": {}}
    artifact = Artifact.save(
        tmp_path / "there", **parts, model_section=section, space_folder=tmp_path
    )
    assert artifact.folder.is_dir()
    with pytest.raises(EvosearchError, match=r"it fails: .*cannot import 'net.py'"):
        Artifact.save(tmp_path / "elsewhere", **parts, model_section=section)
    assert not (tmp_path / "elsewhere").exists()


def test_an_artifact_of_the_format_before_is_still_read(tmp_path: Path) -> None:
    """It has what a state dict has, and buffers beside that are the builder's."""
    artifact, network = saved(tmp_path, Tied())
    plan = json.loads((artifact.folder / "plan.json").read_text())
    (artifact.folder / "plan.json").write_text(json.dumps({**plan, "format": 1}))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_file(state, artifact.folder / "weights.safetensors")
    images = torch.randn(7, 1, 8, 8)
    loaded = Artifact.open(artifact.folder).load(Tied)
    assert torch.equal(loaded(images), network(images))
