"""Artifacts: bit-equal after a reload, in a fresh process, without search code or pickle."""

import importlib
import json
import shutil
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
from evosearch.export import rebuild
from evosearch.export.artifact import Artifact
from evosearch.export.builder import model_section, own_builder
from evosearch.export.formats import export_network
from evosearch.models.build import ModelConfig, build_model
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


class Attending(nn.Module):
    """Attention of torch over the pixels, whose code knows one size of heads only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 2, 2), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x).flatten(2).transpose(1, 2))
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


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


def test_attention_that_lost_heads_is_loaded_here_and_beside_the_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, network = saved(tmp_path, Attending())
    assert (network.attention.num_heads, network.attention.embed_dim) == (2, 8)
    artifact.export(tmp_path / "out")
    monkeypatch.syspath_prepend(tmp_path / "out")
    beside = importlib.import_module("load")
    for name in ("load", "cut_attention"):
        assert Path(sys.modules[name].__file__ or "").parent == tmp_path / "out"
        monkeypatch.delitem(sys.modules, name)
    images = torch.randn(7, 1, 8, 8)
    for loaded in (
        Artifact.open(artifact.folder).load(Attending),
        beside.rebuild(Attending(), tmp_path / "out"),
    ):
        assert torch.equal(loaded(images), network(images))


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
    with pytest.raises(InputError, match="formats 1, 2 and 3"):
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


@pytest.mark.parametrize("format", [1, 2])
def test_an_artifact_of_a_format_before_is_still_read_and_said_to_be_one(
    tmp_path: Path, format: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It has no outputs to compare with, and in format 1 what a state dict has alone."""
    artifact, network = saved(tmp_path, Tied())
    plan = json.loads((artifact.folder / "plan.json").read_text())
    (artifact.folder / "plan.json").write_text(json.dumps({**plan, "format": format}))
    (artifact.folder / "check.safetensors").unlink()
    if format == 1:
        state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        save_file(state, artifact.folder / "weights.safetensors")
    images = torch.randn(7, 1, 8, 8)
    opened = Artifact.open(artifact.folder)
    loaded = opened.load(Tied)
    assert torch.equal(loaded(images), network(images))
    assert "of an earlier version, without outputs to compare with" in caplog.text
    opened.export(tmp_path / "out")
    assert not (tmp_path / "out" / "check.safetensors").exists()


def test_a_network_is_saved_from_a_folder_with_files_that_hide_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fresh process finds the builder where this one does, and nothing else there."""
    (tmp_path / "random.py").write_text("open('ran', 'w').close()\nraise ImportError('not this')")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "found_by_path.py").write_text(NET.format(act="ReLU"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "src")
    section = {"build": "found_by_path:make", "input": [1, 8, 8]}
    base = build_model(ModelConfig.model_validate(section)).eval()
    folder = tmp_path / "artifact"
    Artifact.save(folder, network=base, base=base, mask=Mask({}), model_section=section, card={})
    assert not (tmp_path / "ran").exists()


# A builder that was edited

NET = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.{act}(), nn.Flatten(), nn.Linear(216, 3))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with an artifact and the source of its network."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "net.py").write_text(NET.format(act="ReLU"))
    section = {"build": "net.py:make", "input": [1, 8, 8]}
    base = build_model(ModelConfig.model_validate(section), folder).eval()
    Artifact.save(
        folder / "artifact",
        network=base,
        base=base,
        mask=Mask({}),
        model_section=section,
        card={},
        space_folder=folder,
    )
    return folder


@pytest.fixture
def edited(made: Path, tmp_path: Path) -> Artifact:
    """Returns an artifact whose network's source has another activation since."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "net.py").write_text(NET.format(act="Softsign"))
    return Artifact.open(tmp_path / "artifact")


def test_an_edited_builder_makes_another_network_that_is_refused(
    edited: Artifact, tmp_path: Path
) -> None:
    """Its tensors are the same, so that their names and shapes tell nothing."""
    config = model_section(edited)
    build = own_builder(edited, config, tmp_path / "space.toml")
    before = torch.get_rng_state()
    message = r"artifact: cannot be loaded: its outputs differ by .* the network that was saved"
    with pytest.raises(InputError, match=message):
        edited.load(build)
    with pytest.raises(InputError, match=message):
        export_network(edited, "pt2", tmp_path / "out", build)
    assert not (tmp_path / "out").exists()
    assert torch.equal(torch.get_rng_state(), before)
    (tmp_path / "net.py").write_text(NET.format(act="ReLU"))
    edited.load(own_builder(edited, config, tmp_path / "space.toml"))


def test_the_loader_that_is_copied_refuses_it_too(edited: Artifact, tmp_path: Path) -> None:
    edited.export(tmp_path / "out")
    program = (
        "import sys\nsys.path[:0] = ['out', '.']\nimport load, net\n"
        "load.rebuild(net.make(), 'out')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].startswith("load.OtherNetworkError: its outputs differ by")


def test_all_files_of_an_artifact_have_the_mode_of_others(
    edited: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "usual").touch()
    modes = {path.name: path.stat().st_mode for path in edited.folder.iterdir()}
    assert set(modes.values()) == {(tmp_path / "usual").stat().st_mode}


def test_a_builder_whose_code_fails_since_is_one_line(edited: Artifact, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET.format(act="ReLU").replace("nn.Flatten(), ", ""))
    build = own_builder(edited, model_section(edited), tmp_path / "space.toml")
    with pytest.raises(InputError, match=r"cannot be loaded: tensors of only one of"):
        edited.load(build)
    code = NET.format(act="ReLU").replace("nn.Flatten()", "nn.Flatten(2)")
    (tmp_path / "net.py").write_text(code)
    with pytest.raises(InputError, match=r"cannot be loaded: it fails: RuntimeError: ") as caught:
        edited.load(own_builder(edited, model_section(edited), tmp_path / "space.toml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "no outputs that can be compared"),
        (
            {"0 shape": torch.tensor([3, 4])},
            r"outputs of the shapes \[\[3, 3\]\], not \[\[3, 4\]\]",
        ),
        (
            {"0 shape": torch.tensor([3, 3]), "0 numbers": torch.zeros(2)},
            r"check\.safetensors is not what was written",
        ),
    ],
)
def test_outputs_that_are_not_those_written(
    edited: Artifact, tmp_path: Path, outputs: dict[str, Tensor], message: str
) -> None:
    (tmp_path / "net.py").write_text(NET.format(act="ReLU"))
    save_file(outputs, edited.folder / "check.safetensors")
    with pytest.raises(InputError, match=message):
        edited.load(own_builder(edited, model_section(edited), tmp_path / "space.toml"))


def test_an_artifact_without_its_outputs_is_not_whole(edited: Artifact) -> None:
    (edited.folder / "check.safetensors").unlink()
    with pytest.raises(InputError, match=r"check\.safetensors is missing"):
        Artifact.open(edited.folder)


def test_the_images_that_outputs_are_of_look_random_and_are_always_the_same() -> None:
    images = rebuild._images([3, 32, 32])
    assert images.shape == (rebuild.IMAGES, 3, 32, 32)
    assert float(images.mean()) == pytest.approx(0, abs=0.02)
    assert float(images.var()) == pytest.approx(1, abs=0.02)
    flat = images.flatten()
    for lag in (1, 32, 1024, 3072):
        assert abs(float((flat[lag:] * flat[:-lag]).mean())) < 0.04
    by_hand = [(number + 65537) ** 4 % (2**31 - 1) / (2**31 - 1) for number in range(100)]
    expected = (torch.tensor(by_hand, dtype=torch.float64) - 0.5) * 12**0.5
    assert torch.equal(rebuild._images([10, 10]).flatten()[:100], expected)
