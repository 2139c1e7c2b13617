"""The int8 export: what its card says is what the file does; what cannot be is refused."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnxscript", reason="ONNX is not installed")
pytest.importorskip("onnxruntime", reason="ONNX is not installed")

import evosearch
from evosearch.data.splits import load_search_data, load_test_split
from evosearch.errors import EvosearchError, InputError
from evosearch.export import artifact as artifact_module
from evosearch.export import formats
from evosearch.export.artifact import Artifact
from evosearch.export.builder import own_builder
from evosearch.export.card import card_markdown
from evosearch.export.formats import verify
from evosearch.export.quantized import Quantized
from evosearch.models.build import ModelConfig
from evosearch.run import quantization
from evosearch.run.callbacks import SILENT, Callbacks
from evosearch.run.config import RunConfig, SearchConfig, run_config_to_toml
from evosearch.run.folder import RunFolder
from evosearch.run.lock import RunLock
from evosearch.run.quantization import export_int8, origin_of
from evosearch.run.spacefile import load_space_file
from evosearch.tasks import testing
from tests.export.test_formats import artifact
from tests.test_cli import InProcess, assert_refused, run  # noqa: F401  (run is a fixture)

SPACE = """
[model]
build = "tests.run.test_quantization:Net"
input = [1, 8, 8]
[data]
name = "digits"
mean = [0.305]
std = [0.376]
calibration = 40
search = 300
[search.latency]
batch = 2
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Conv2d(8, 8, 3, 2, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(self.stem(images))).mean((2, 3)))


@dataclass(frozen=True)
class Exported:
    folder: Path
    saved: Artifact
    quantized: Quantized
    difference: float

    @property
    def out(self) -> Path:
        return self.folder / "out"


def saved_in(folder: Path, space: str = SPACE) -> Artifact:
    (folder / "space.toml").write_text(space)
    model = ModelConfig(build="tests.run.test_quantization:Net", input=(1, 8, 8))
    return artifact(folder, model)


def export(
    saved: Artifact, folder: Path, *keep: str, callbacks: Callbacks = SILENT
) -> tuple[Quantized, float]:
    space = folder / "space.toml"
    build = own_builder(saved, load_space_file(space).model, space)
    origin = origin_of(saved, space, trust=False)
    out = folder / "out"
    return export_int8(saved, out, build, origin, keep_float=keep, callbacks=callbacks)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """A network exported with its body in float, all of whose layers were looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifact_module, "verify_reload", lambda *_: None)
        patch.setattr(quantization, "POINT", -1.0)
        patch.setattr(quantization, "SECONDS", 0.1)
        folder = tmp_path_factory.mktemp("int8")
        saved = saved_in(folder)
        quantized, difference = export(saved, folder, "bod*")
        yield Exported(folder, saved, quantized, difference)


def shares_right(path: Path, images: Tensor, labels: Tensor) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {"images": images.numpy()})
    return float((outputs.argmax(1) == labels.numpy()).mean())


def test_scores_are_what_the_file_gives_in_onnxruntime(done: Exported) -> None:
    config = load_space_file(done.folder / "space.toml").data
    path, found = done.out / "model.onnx", done.quantized.quantized
    test, search = load_test_split(config), load_search_data(config).search
    assert found.test.images == len(test) == 450
    assert found.test.accuracy == pytest.approx(shares_right(path, test.images[:], test.labels))
    expected = shares_right(path, search.images[:], search.labels)
    assert found.search.accuracy == pytest.approx(expected)
    assert done.quantized.float32.search.accuracy - expected == pytest.approx(
        done.quantized.lost.mean
    )
    assert done.quantized.lost.low < done.quantized.lost.mean < done.quantized.lost.high
    assert found.bytes == path.stat().st_size


def test_layers_are_in_int8_or_in_float_as_the_card_says(done: Exported) -> None:
    import onnx

    assert done.quantized.int8 == ("stem.0", "head")
    assert done.quantized.kept == ("body",)
    tensors = onnx.load(done.out / "model.onnx").graph.initializer
    bytes_ = {tensor.name for tensor in tensors if tensor.data_type == onnx.TensorProto.INT8}
    assert {name.rpartition(".weight")[0] for name in bytes_} - {""} == {"stem.0", "head"}
    assert {own.module for own in done.quantized.layers} == {"stem.0", "head"}


def test_the_card_has_it_all_for_programs_and_people(done: Exported) -> None:
    card = json.loads((done.out / "card.json").read_text())
    assert Quantized.from_json(card["export"]["quantized"]) == done.quantized
    assert card["export"]["largest_difference"] == done.difference > 0
    text = (done.out / "README.md").read_text()
    assert card_markdown(card) == text
    assert "calibrated on 40 images: 2 layers in int8. In float: body (as asked for)." in text
    assert "Layers that lose it, of 2 layers each quantized alone: " in text
    assert f"| int8 | {done.quantized.quantized.search.accuracy_text} |" in text
    assert "the float file's" in text
    assert "batch 2, 1 thread" in text


def test_the_test_split_is_opened_once_for_each_file(done: Exported) -> None:
    ledger = json.loads((done.saved.folder / "test.json").read_text())
    assert ledger["opened"] == done.quantized.test_opened == 2
    names = [name.rpartition(",")[0] for name in ledger["results"]]
    assert [name.endswith("int8") for name in names] == [False, True]


def test_the_file_is_verified_again_and_another_is_refused(done: Exported, tmp_path: Path) -> None:
    difference, largest = verify(done.out)
    assert difference <= 1e-5 * largest
    card = json.loads((done.out / "card.json").read_text())
    checks = dict(np.load(done.out / "check.npz"))
    for name in ("model.onnx", "card.json"):
        (tmp_path / name).write_bytes((done.out / name).read_bytes())
    # Another processor may differ by as much as int8 does from float, and by no more.
    for factor, fine in ((0.9, True), (1.1, False)):
        moved = {**checks, "outputs7": checks["outputs7"] + factor * done.difference}
        np.savez(tmp_path / "check.npz", **moved)
        if fine:
            assert verify(tmp_path)[0] == pytest.approx(factor * done.difference, rel=0.01)
        else:
            with pytest.raises(EvosearchError, match="outputs differ from the network's"):
                verify(tmp_path)
    card["export"]["allowed_difference"] = "any"
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="not run"):
        verify(tmp_path)


def test_too_few_calibration_images_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_module, "verify_reload", lambda *_: None)
    saved = saved_in(tmp_path, SPACE.replace("calibration = 40", "calibration = 20"))
    with pytest.raises(InputError, match=r"calibrated on 32 images at least, .* gives 20"):
        export(saved, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifact", "space.toml"]


def test_what_is_missing_is_named(
    done: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setattr(formats, "find_spec", lambda asked, name=name: asked != name or None)
        with pytest.raises(InputError, match=rf"needs {name}: pip install 'evosearch\[onnx\]'"):
            export(done.saved, done.folder)


def test_a_ledger_of_other_data_is_refused_before_anything_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_module, "verify_reload", lambda *_: None)
    saved = saved_in(tmp_path)
    other = load_space_file(tmp_path / "space.toml").data.model_copy(update={"seed": 1})
    testing.TestReport(saved.folder / "test.json", other).measure("plan", Net())
    stages: list[str] = []
    with pytest.raises(InputError, match=r"test\.json: a ledger of other data; its \[data\]"):
        export(saved, tmp_path, callbacks=Callbacks(on_stage=stages.append))
    assert stages == ["data"]
    assert not (tmp_path / "out").exists()


def test_the_ledger_of_a_run_is_written_by_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_module, "verify_reload", lambda *_: None)
    saved = saved_in(tmp_path)
    space = load_space_file(tmp_path / "space.toml")
    config = RunConfig(folder=str(tmp_path), budget={}, search=SearchConfig(), space=space)
    place = RunFolder(tmp_path / "run")
    place.path.mkdir()
    place.config.write_text(run_config_to_toml(config))
    of_run = Artifact(
        plan=saved.plan, card={**saved.card, "run": str(place.path)}, folder=saved.folder
    )
    held = RunLock(place.path)
    with pytest.raises(InputError, match="run: in use by pid"):
        export(of_run, tmp_path)
    held.release()
    assert not (tmp_path / "out").exists()
    assert not place.test.exists()


def artifact_with(card: dict[str, str], folder: Path) -> Artifact:
    return Artifact(plan={}, card=card, folder=folder)


def test_data_are_of_the_space_that_the_card_names(tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    with pytest.raises(InputError, match="names no run or space file that is here; give --space"):
        origin_of(artifact_with({"space": str(space)}, tmp_path), None, trust=False)
    space.write_text(SPACE)
    named = artifact_with({"space": str(space)}, tmp_path / "artifact")
    origin = origin_of(named, None, trust=False)
    assert (origin.file.data.calibration, origin.folder, origin.run) == (40, tmp_path, None)
    assert origin.search.latency.batch == 2


def test_code_that_a_card_leads_to_is_not_run_without_trust(tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text(SPACE.replace('"digits"', '"own.py:images"'))
    named = artifact_with({"space": str(space)}, tmp_path)
    with pytest.raises(InputError, match=r"run 'own.py:images', .* --space FILE .* or --trust"):
        origin_of(named, None, trust=False)
    assert origin_of(named, None, trust=True).file.data.name == "own.py:images"
    assert origin_of(named, space, trust=False).file.data.name == "own.py:images"


def test_the_command_line_refuses_what_does_not_fit(
    run: InProcess,  # noqa: F811
    tmp_path: Path,
) -> None:
    asked = ("export", "artifact", "--to", "out", "--quantize", "int8", "--format", "pt2")
    assert_refused(run(*asked, cwd=tmp_path), "--quantize int8 is for --format onnx, not pt2")
    assert list(tmp_path.iterdir()) == []


DIGITS = """
[model]
build = "evosearch.models.zoo:digits_resnet"
input = [1, 8, 8]
[model.kwargs]
width = 8
[data]
name = "digits"
mean = [0.305]
std = [0.376]
calibration = 150
search = 300
[train]
epochs = 12
[finetune]
epochs = 2
"""


@pytest.mark.slow
def test_a_network_of_a_run_from_end_to_end(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(DIGITS)
    folder = tmp_path / "run"
    evosearch.search(tmp_path / "space.toml", flops="60%", strategy="random", trials=2, out=folder)
    tuned = evosearch.finetune(folder)
    before = json.loads((folder / "test.json").read_text())["opened"]
    quantized = [
        evosearch.export_artifact(
            tuned.artifact.folder, to=tmp_path / name, format="onnx", quantize="int8"
        ).quantized
        for name in ("one", "two")
    ]
    # The float network is in the run's ledger, and so is the int8 file after the first export.
    assert [own.test_opened for own in quantized if own] == [before + 1, before + 1]
    assert quantized[0] is not None
    low, high = quantized[0].quantized.test.accuracy_interval
    test = load_test_split(load_space_file(tmp_path / "space.toml").data)
    found = shares_right(tmp_path / "one" / "model.onnx", test.images[:], test.labels)
    assert low <= found <= high
    assert quantized[0].float32.test == tuned.networks[-1].test
    assert quantized[0].lost.mean < 0.03
