"""Exported files give the network's outputs in a fresh process, for any batch size."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evosearch.errors import EvosearchError, InputError
from evosearch.export import artifact as artifact_module
from evosearch.export import formats as exporting
from evosearch.export.artifact import Artifact
from evosearch.export.builder import named_builder, own_builder
from evosearch.export.formats import CHECK, FORMATS, export_network, verify
from evosearch.models.build import ModelConfig, build_model
from evosearch.space.budget import Budget
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import GroupRules, discover
from evosearch.surgery.randomizing import randomize

DIGITS = ModelConfig(
    build="evosearch.models.zoo:digits_resnet", input=[1, 8, 8], kwargs={"width": 8}
)


def artifact(folder: Path, config: ModelConfig) -> Artifact:
    """Saves the network of a model at half its MACs, with weights that keep signals alive."""
    model = build_model(config, seed=0)
    example = (torch.randn(2, *config.input),)
    randomize(model, example, torch.Generator().manual_seed(0))
    space = discover(model.eval(), example, GroupRules(), seed=0).space
    half = Budget.exactly(macs=space.base_cost.macs // 2)
    mask = space.sample(np.random.default_rng(0), half)
    return Artifact.save(
        folder / "artifact",
        network=compact(model, space.groups, mask).eval(),
        base=model,
        mask=mask,
        model_section=config.model_dump(mode="json", exclude_none=True),
        card={"name": "a test"},
    )


def exported(folder: Path, kind: str, config: ModelConfig = DIGITS) -> float:
    """Exports the network of a model that evosearch or torchvision ships to `folder / "out"`."""
    saved = artifact(folder, config)
    return export_network(saved, kind, folder / "out", named_builder(saved, Path()))


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_is_checked_and_its_card_says_how_far_outputs_differ(
    kind: str, tmp_path: Path
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxscript", reason="ONNX is not installed")
    difference = exported(tmp_path, kind)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {FORMATS[kind].file, CHECK, "card.json", "README.md"}
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["name"] == "a test"
    assert card["export"]["largest_difference"] == difference
    assert difference < 1e-4 * max(1.0, card["export"]["largest_output"])
    assert card["export"]["largest_output"] > 0.1
    assert verify(tmp_path / "out")[0] == difference
    file = tmp_path / "out" / FORMATS[kind].file
    assert card["export"]["sha256"] == sha256(file.read_bytes()).hexdigest()
    with pytest.raises(InputError, match="exists already"):
        exported(tmp_path, kind)


def test_other_outputs_and_broken_files_are_refused(tmp_path: Path) -> None:
    exported(tmp_path, "pt2")
    checks = dict(np.load(tmp_path / "out" / CHECK))
    checks["outputs7"] = checks["outputs7"] + 0.01
    np.savez(tmp_path / "out" / CHECK, **checks)
    with pytest.raises(EvosearchError, match=r"outputs differ .* by 1\.0e-02"):
        verify(tmp_path / "out")
    (tmp_path / "out" / FORMATS["pt2"].file).write_bytes(b"no archive")
    with pytest.raises(InputError, match="is not the file that was exported"):
        verify(tmp_path / "out")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    card["export"]["sha256"] = sha256(b"no archive").hexdigest()
    (tmp_path / "out" / "card.json").write_text(json.dumps(card))
    with pytest.raises(EvosearchError, match="does not run"):
        verify(tmp_path / "out")
    with pytest.raises(InputError, match="holds no exported network"):
        verify(tmp_path)


def test_an_onnx_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX is not installed")
    exported(tmp_path, "onnx")
    with (tmp_path / "out" / FORMATS["onnx"].file).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError, match=r"model\.onnx: .* not the file that was exported"):
        verify(tmp_path / "out")


def test_a_missing_package_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'evosearch\[onnx\]'"):
        exported(tmp_path, "onnx")
    assert not (tmp_path / "out").exists()


def test_a_format_that_is_none_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown format 'onx': did you mean 'onnx'"):
        exported(tmp_path, "onx")
    assert not (tmp_path / "out").exists()


class Named(nn.Module):
    """Returns its outputs by name, as torchvision's segmentation networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(self.stem(images).relu())}


def test_a_network_of_named_outputs_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_module, "verify_reload", lambda *_: None)
    config = ModelConfig(build="tests.export.test_formats:Named", input=[1, 4, 4])
    saved = artifact(tmp_path, config)
    build = own_builder(saved, config, tmp_path / "space.toml")
    with pytest.raises(InputError, match="return one tensor, and this one returns a dict; format"):
        export_network(saved, "pt2", tmp_path / "out", build)
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_torchvision_networks_at_half_their_flops(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX is not installed")
    config = ModelConfig(build=f"torchvision:{name}", input=[3, 96, 96], kwargs={"weights": None})
    difference = exported(tmp_path, "onnx", config)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["export"]["largest_output"] > 0.1
    assert difference < 1e-4
