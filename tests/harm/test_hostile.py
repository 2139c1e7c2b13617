"""Files planted by someone hostile: never unpickled, and no path of theirs is followed."""

import ast
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import evosearch
from evosearch.errors import InputError
from evosearch.export.artifact import Artifact
from evosearch.models.weights import load_weights
from evosearch.models.zoo import digits_resnet
from evosearch.space.knowledge import Knowledge
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import STUDY_FILE, Study
from evosearch.training.checkpoint import Checkpoint
from tests.export.test_artifact import saved
from tests.run.test_session import SPACE


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.path),))


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    return Payload(tmp_path / "planted")


@pytest.fixture(autouse=True)
def _nothing_was_run(payload: Payload) -> Iterator[None]:
    yield
    assert not payload.path.exists()
    pickle.loads(pickle.dumps(payload))  # noqa: S301 (it would have been)
    assert payload.path.exists()


def test_weights(payload: Payload, tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    for name in ("a.pt", "b.pth", "c.safetensors"):
        torch.save({"weight": payload}, tmp_path / name)
        with pytest.raises(InputError, match=rf"{name}: no weights file"):
            load_weights(model, tmp_path / name)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(payload))
    with pytest.raises(InputError, match=r"raw\.pt: no weights file"):
        load_weights(model, tmp_path / "raw.pt")


def test_an_artifact(payload: Payload, tmp_path: Path) -> None:
    artifact, _ = saved(tmp_path, digits_resnet(width=8))
    for name in ("check.safetensors", "weights.safetensors"):
        torch.save(payload, artifact.folder / name)
        with pytest.raises(InputError, match="cannot be loaded"):
            artifact.load(lambda: digits_resnet(width=8))
    (artifact.folder / "plan.json").write_bytes(pickle.dumps(payload))
    with pytest.raises(InputError, match="malformed"):
        Artifact.open(artifact.folder)


def test_a_checkpoint_of_a_fine_tuning(payload: Payload, tmp_path: Path) -> None:
    for content in ({"about": "x", "state": payload}, payload):
        torch.save(content, tmp_path / "c")
        assert Checkpoint(tmp_path / "c", about="x").load() is None


def test_knowledge(payload: Payload, tmp_path: Path) -> None:
    planted = np.array([payload], dtype=object)
    np.savez(tmp_path / "k.npz", **{"gram|a|a": planted})
    with pytest.raises(InputError, match="damaged"):
        Knowledge.load(tmp_path / "k.npz")
    (tmp_path / "k.npz").write_bytes(pickle.dumps(payload))
    with pytest.raises(InputError, match="damaged"):
        Knowledge.load(tmp_path / "k.npz")


def test_a_study(payload: Payload, tmp_path: Path) -> None:
    for content in (pickle.dumps(payload), pickle.dumps(payload) + b"\n"):
        (tmp_path / STUDY_FILE).write_bytes(content)
        with pytest.raises(InputError, match="not a readable study"):
            Study.open(tmp_path)


def test_scores(payload: Payload, tmp_path: Path) -> None:
    mask = SPACE.full_mask()
    for content in (payload, np.array([payload, payload], dtype=object)):
        path = tmp_path / f"{mask.key}.npy"
        path.unlink(missing_ok=True)
        if isinstance(content, Payload):
            path.write_bytes(pickle.dumps(content))
        else:
            np.save(path, content, allow_pickle=True)
        assert ScoreStore(tmp_path).get(mask) is None


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_an_artifact_names_no_path(name: str, tmp_path: Path) -> None:
    """Names of modules and tensors that look like paths stay names, and are refused."""
    artifact, _ = saved(tmp_path, digits_resnet(width=8))
    plan = json.loads((artifact.folder / "plan.json").read_text())
    plan["modules"][name] = {"out_channels": 3}
    plan["weights"] = plan["path"] = name
    (artifact.folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(InputError, match="has a module"):
        Artifact.open(artifact.folder).load(lambda: digits_resnet(width=8))
    Artifact.open(artifact.folder).export(tmp_path / "out")
    tensors = {"weights.safetensors", "check.safetensors"}
    files = {
        "plan.json",
        "card.json",
        "README.md",
        "load.py",
        "calling.py",
        "cut_attention.py",
    } | tensors
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "check.safetensors", "plan.json", "card.json"]
)
def test_links_out_of_an_artifact_are_refused(name: str, tmp_path: Path) -> None:
    artifact, _ = saved(tmp_path, digits_resnet(width=8))
    shutil.move(artifact.folder / name, tmp_path / name)
    (artifact.folder / name).symlink_to(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: a link out of its folder"):
        Artifact.open(artifact.folder)


def test_attributes_of_a_plan_are_sizes(tmp_path: Path) -> None:
    artifact, _ = saved(tmp_path, digits_resnet(width=8))
    plan = json.loads((artifact.folder / "plan.json").read_text())
    for attribute, value in (("out_channels", "exec"), ("out_channels", 1.5), ("__class__", 1)):
        changed = {**plan, "modules": {**plan["modules"], "conv1": {attribute: value}}}
        (artifact.folder / "plan.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=r"plan\.json: .*conv1"):
            Artifact.open(artifact.folder)


def test_nothing_prints_but_the_command_line_and_nothing_unpickles() -> None:
    root = Path(evosearch.__file__).parent
    wrong = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                named = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if (
                    called in ("print", "sys.stdout.write", "sys.stderr.write", "eval", "exec")
                    or "pickle.load" in called
                    or (called == "torch.load" and named.get("weights_only") != "True")
                    or (called == "np.load" and named.get("allow_pickle") != "False")
                    or (called == "joblib.load")
                ):
                    wrong.append(f"{path.relative_to(root)}:{node.lineno}: {called}")
    assert wrong == []
