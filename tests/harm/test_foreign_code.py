"""Code that a file names or holds: it runs for those who vouch for it, and for no one else."""

import json
import shutil
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from evosearch.config import read_toml
from evosearch.export.artifact import Artifact
from evosearch.export.formats import FORMATS, export_network
from evosearch.models.zoo import digits_resnet
from evosearch.run.config import read_run_config, run_config_digest
from evosearch.run.folder import RunFolder
from evosearch.study.study import STUDY_FILE
from tests.export.test_artifact import saved
from tests.harm.test_hostile import Payload
from tests.test_cli import (  # noqa: F401  (run is a fixture)
    QUICK,
    InProcess,
    assert_refused,
    evosearch,
    run,
)

BUILDER = """
from pathlib import Path
from evosearch.models.zoo import digits_resnet

def make(width):
    Path({marker!r}).mkdir()
    return digits_resnet(width=width)
"""
"""A builder that leaves a mark."""
MODEL = {"build": "net.py:make", "kwargs": {"width": 8}, "input": [1, 8, 8]}
DIGITS = {"name": "digits", "calibration": 150, "search": 300}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder that is made by foreign code, if that runs."""
    return tmp_path / "planted"


def naming(folder: Path, **model: Any) -> Artifact:
    """Returns an artifact whose plan was edited to name another model."""
    artifact, _ = saved(folder, digits_resnet(width=8))
    path = artifact.folder / "plan.json"
    plan = json.loads(path.read_text())
    plan["model"] |= model
    path.write_text(json.dumps(plan))
    return Artifact.open(artifact.folder)


def own_space(folder: Path, marker: Path, **model: Any) -> Path:
    """Writes a space file, and a builder beside it that leaves a mark."""
    folder.mkdir(exist_ok=True)
    (folder / "net.py").write_text(BUILDER.format(marker=str(marker)))
    path = folder / "space.toml"
    path.write_text(tomli_w.dumps({"model": MODEL | model, "data": DIGITS}))
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_runs_no_builder_that_a_file_names(
    kind: str,
    tmp_path: Path,
    planted: Path,
    run: InProcess,  # noqa: F811
) -> None:
    artifact = naming(tmp_path, build="os:system", kwargs={"command": f"mkdir {planted}"})
    export = ("export", artifact.folder, "--format", kind, "--to", "out")
    done = run(*export, cwd=tmp_path)
    assert_refused(done, "its network is built by 'os:system'")
    assert "--space FILE" in done.stderr
    assert "--trust" in done.stderr
    assert not planted.exists()
    assert not (tmp_path / "out").exists()
    assert run("export", artifact.folder, "--to", "copy", cwd=tmp_path).returncode == 0
    assert not planted.exists()


def test_trust_runs_what_the_artifact_names(
    tmp_path: Path,
    planted: Path,
    run: InProcess,  # noqa: F811
) -> None:
    own_space(tmp_path, planted)
    artifact = naming(tmp_path, **MODEL)
    export = ("export", artifact.folder, "--format", "pt2", "--to", "out")
    assert_refused(run(*export, cwd=tmp_path), f"'net.py:make' of {tmp_path}, and")
    assert not planted.exists()
    done = run(*export, "--trust", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert planted.exists()


def test_a_space_file_has_the_builder_and_the_artifact_none(
    tmp_path: Path,
    planted: Path,
    run: InProcess,  # noqa: F811
) -> None:
    """Of two builders of one name the user's runs, not the one that the artifact would find."""
    own_space(tmp_path, planted)
    mine = own_space(tmp_path / "mine", tmp_path / "marked")
    artifact = naming(tmp_path, **MODEL)
    export = ("export", artifact.folder, "--format", "pt2", "--to", "out")
    done = run(*export, "--space", mine, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "marked").exists()
    assert not planted.exists()
    both = run(*export, "--space", mine, "--trust", cwd=tmp_path)
    assert_refused(both, "give one of them")


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"build": "net.py:other"}, "[model] build is 'net.py:make', but 'net.py:other' in"),
        ({"kwargs": {"width": 4}}, "[model] kwargs is {'width': 8}, but {'width': 4} in"),
        ({"input": [1, 9, 9]}, "[model] input is (1, 8, 8), but (1, 9, 9) in"),
        ({"input": "os:system"}, "model: input"),
    ],
)
def test_a_space_file_of_another_model_is_refused(
    edit: dict[str, Any],
    expected: str,
    tmp_path: Path,
    planted: Path,
    run: InProcess,  # noqa: F811
) -> None:
    mine = own_space(tmp_path, planted)
    artifact = naming(tmp_path, **MODEL | edit)
    export = ("export", artifact.folder, "--format", "pt2", "--to", "out")
    assert_refused(run(*export, "--space", mine, cwd=tmp_path), expected)
    assert not planted.exists()


def plant(path: Path, payload: Payload) -> None:
    """Puts a pickle in the place of a weight of a `.pt2` file."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    config = next(name for name in records if name.endswith("weights_config.json"))
    weights = json.loads(records[config])
    weight = next(iter(weights["config"].values()))
    weight["use_pickle"] = True
    records[config] = json.dumps(weights).encode()
    torch.save(payload, path.with_name("pickle"))
    name = next(name for name in records if name.endswith(f"/{weight['path_name']}"))
    records[name] = path.with_name("pickle").read_bytes()
    path.with_name("pickle").unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a network was exported to as `.pt2`."""
    folder = tmp_path_factory.mktemp("exported")
    artifact, _ = saved(folder, digits_resnet(width=8))
    export_network(artifact, "pt2", folder / "out", lambda: digits_resnet(width=8))
    return folder / "out"


def test_a_pt2_runs_only_where_it_is_the_one_that_was_exported(
    exported: Path,
    tmp_path: Path,
    planted: Path,
    run: InProcess,  # noqa: F811
) -> None:
    out = shutil.copytree(exported, tmp_path / "out")
    verify = ("export", out, "--verify")
    assert run(*verify, cwd=tmp_path).returncode == 0
    plant(out / "model.pt2", Payload(planted))
    assert_refused(run(*verify, cwd=tmp_path), "not run, as it is not the file that was exported")
    card = json.loads((out / "card.json").read_text())
    hashed = card["export"].pop("sha256")
    for content in (json.dumps(card), "{}", "[]", "no json", json.dumps({"export": "x"})):
        (out / "card.json").write_text(content)
        assert_refused(run(*verify, cwd=tmp_path), "card.json has no hash of it")
    (out / "card.json").unlink()
    assert_refused(run(*verify, cwd=tmp_path), "card.json has no hash of it")
    assert not planted.exists()

    # The hash is no signature: a card that was forged too is believed, and the plant runs.
    card["export"]["sha256"] = sha256((out / "model.pt2").read_bytes()).hexdigest()
    assert card["export"]["sha256"] != hashed
    (out / "card.json").write_text(json.dumps(card))
    assert run(*verify, cwd=tmp_path).returncode == 1
    assert planted.exists()


def test_verifying_imports_nothing_from_where_it_is_started(
    exported: Path,
    tmp_path: Path,
    planted: Path,
    run: InProcess,  # noqa: F811
) -> None:
    out = shutil.copytree(exported, tmp_path / "out")
    for module in ("numpy", "torch"):
        (out / f"{module}.py").write_text(f"import os\nos.mkdir({str(planted)!r})\n")
    done = run("export", ".", "--verify", cwd=out)
    assert not planted.exists()
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two trials."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "quick.toml").write_text(QUICK)
    search = ("search", "quick.toml", "--flops", "50%", "--trials", "2", "--out", "run")
    done = evosearch(*search, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.mark.parametrize(
    ("section", "edit"),
    [
        ("model", {"build": "os:mkdir", "kwargs": {}}),
        ("data", {"name": "os:mkdir", "kwargs": {}}),
        ("task", {"loss": "os:mkdir"}),
    ],
)
def test_a_run_whose_config_was_edited_runs_nothing_of_it(
    section: str,
    edit: dict[str, Any],
    begun: Path,
    planted: Path,
    run: InProcess,  # noqa: F811
) -> None:
    path = RunFolder(begun).config
    before = path.read_text()
    edited = read_toml(path)
    edited["space"][section] |= edit
    if "kwargs" in edit:
        edited["space"][section]["kwargs"] = {"path": str(planted)}
    path.write_text(tomli_w.dumps(edited))
    try:
        for command in (
            ("resume", "run", "--trials", "4"),
            ("finetune", "run", "--at", "flops=50%"),
            ("pareto", "run", "--at", "flops=50%", "--evaluate"),
        ):
            refused = run(*command, cwd=begun.parent)
            assert_refused(refused, "edited since the run began, or from another run")
            assert f"space.{section}." in refused.stderr
            assert not planted.exists()
    finally:
        path.write_text(before)


def test_a_run_whose_config_and_study_were_forged_is_believed(
    begun: Path,
    planted: Path,
    run: InProcess,  # noqa: F811
) -> None:
    """So a run folder is trusted input, as the README says."""
    places, study = RunFolder(begun), begun / STUDY_FILE
    before = {path: path.read_text() for path in (places.config, study)}
    old = run_config_digest(read_run_config(begun))
    edited = read_toml(places.config)
    edited["space"]["model"] |= {"build": "os:mkdir", "kwargs": {"path": str(planted)}}
    try:
        places.config.write_text(tomli_w.dumps(edited))
        new = run_config_digest(read_run_config(begun))
        assert before[study].count(old) == 1
        study.write_text(before[study].replace(old, new))
        done = run("resume", "run", "--trials", "4", cwd=begun.parent)
        assert_refused(done, "'os:mkdir' returned a NoneType")
        assert planted.exists()
    finally:
        for path, text in before.items():
            path.write_text(text)
