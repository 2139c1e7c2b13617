"""The example scripts run as they are, on few trials."""

import copy
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import evosearch
from evosearch.training.epochs import EpochRecord
from tests.report.toyrun import toy_run
from tests.toys import toy_knowledge

EXAMPLES = Path(__file__).parent.parent / "scripts" / "examples"
Example = Callable[..., str]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first example that trains the digits' base network leaves it for the next."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def example(tmp_path: Path, cache: Path) -> Example:
    def run(name: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments)],
            cwd=tmp_path,
            env={
                **os.environ,
                "EVOSEARCH_CACHE": str(cache),
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in text] == []


def test_search_flops(example: Example, tmp_path: Path) -> None:
    out = example("search_flops.py", "--trials", "4", "--epochs", "1", "--out", tmp_path / "run")
    assert "% of the FLOPs, search accuracy" in out
    assert "distilled 1 epochs: test accuracy" in out


def test_resume(example: Example, tmp_path: Path) -> None:
    out = example("resume.py", "--trials", "9", "--out", tmp_path / "run")
    assert "stopped after 3 trials" in out
    assert "went on to 6 trials" in out
    assert "at 25 % of the FLOPs: best loss" in out


def test_inspect_front(example: Example, tmp_path: Path) -> None:
    toy_run(tmp_path / "run", 24)
    toy_knowledge().save(tmp_path / "run" / "knowledge.npz")
    out = example("inspect_front.py", tmp_path / "run")
    assert "(knee): loss" in out
    assert "at 45 % of the FLOPs:" in out
    assert "24 trials; slowest" in out


def test_own_model(example: Example, tmp_path: Path) -> None:
    out = example("own_model.py", "--trials", "4", "--out", tmp_path / "run")
    assert "stem.0: keeps" in out
    assert "test accuracy" in out


@pytest.mark.slow
def test_spiking(example: Example) -> None:
    out = example("spiking.py", "--epochs", "8")
    base, cut, trained = (float(x) for x in re.findall(r"([\d.]+) %", out) if "." in x)
    assert base > 85
    assert trained > max(cut, 85)


def test_steps_that_go_backward_by_themselves_give_the_gradient_of_their_sum() -> None:
    spiking = loaded("spiking.py")
    torch.manual_seed(0)
    online = spiking.make_model().double()
    images, labels = torch.rand(8, 1, 8, 8).double(), torch.arange(8)
    together = copy.deepcopy(online)
    spiking.backward_online(online, images, labels)
    total, carried = torch.zeros(()).double(), spiking.Potentials()
    for _ in range(spiking.STEPS):
        logits, carried = together.step(images, carried)
        carried = spiking.Potentials(*(potential.detach() for potential in carried))
        total = total + spiking.step_loss(logits, labels)
    total.backward()
    for own, other in zip(online.parameters(), together.parameters(), strict=True):
        assert own.grad.abs().max() > 0
        torch.testing.assert_close(own.grad, other.grad, rtol=0, atol=1e-14)


def test_weightless(example: Example) -> None:
    out = example("weightless.py")
    whole, best, _, anything, _ = (float(x) for x in re.findall(r"([\d.]+) %", out))
    assert whole > 85
    assert whole > best > anything + 5


def test_a_filter_is_worth_what_it_fires_for_its_own_class() -> None:
    """Two classes: it fires in the discriminator of class 0, on images of classes 0, 0 and 1."""
    fires = torch.zeros(4, 2, 1)
    fires[:3, 0] = 1
    found = loaded("weightless.py").scores(fires, torch.tensor([0, 0, 1, 1]))
    assert found.tolist() == [[1 + 1 - 1], [0]]


def test_digit_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = loaded("digit_scenes.py")
    monkeypatch.setattr(scenes, "SPLITS", {"train": 12, "search": 4, "test": 4})
    maps, boxes = scenes.segmentation(), scenes.detection()
    for name in scenes.SPLITS:
        images, targets = boxes[name]
        assert np.array_equal(images, maps[name][0])
        for classes, target in zip(maps[name][1], targets, strict=True):
            assert 1 <= len(target["labels"]) <= scenes.MOST
            left = classes.copy()
            for (x0, y0, x1, y1), label in zip(
                target["boxes"].astype(int), target["labels"], strict=True
            ):
                own = classes[y0:y1, x0:x1] == label + 1
                # The box ends where the digit does.
                assert all(own[edge].any() for edge in (0, -1))
                assert all(own[:, edge].any() for edge in (0, -1))
                left[y0:y1, x0:x1][own] = 0
            assert not left.any()


def test_scenes_of_two_splits_share_no_original() -> None:
    scenes, classes = loaded("digit_scenes.py"), np.arange(1797) % 10
    found = scenes.originals(classes)
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(1797))
    assert len(found["train"]) == pytest.approx(1797 * 1000 / 1800, abs=3)


def test_a_detector_that_is_right_has_little_loss_and_an_map_of_one() -> None:
    detect = loaded("detect_digits.py")
    true = {"boxes": torch.tensor([[8.0, 12, 24, 28], [40, 36, 56, 60]])}
    true["labels"] = torch.tensor([3, 7])
    output = {"classes": torch.full((1, 10, 16, 16), -9.0), "sides": torch.zeros(1, 4, 16, 16)}
    wrong = detect.loss(output, [true]).item()
    _, _, centres = detect.cells(output)
    for box, label in zip(true["boxes"], true["labels"], strict=True):
        middle = (box[:2] + box[2:]) / 2
        for cell in ((centres - middle).abs().amax(1) < detect.REACH).nonzero().flatten():
            row, column = divmod(cell.item(), 16)
            output["classes"][0, label, row, column] = 9
            reach = torch.cat([centres[cell] - box[:2], box[2:] - centres[cell]]) / detect.STRIDE
            output["sides"][0, :, row, column] = reach.expm1().log()  # softplus undone
    assert detect.loss(output, [true]).item() < 1e-3 < 1 < wrong
    (found,) = detect.predictions(output)
    assert sorted(found["labels"].tolist()) == [3, 7]
    order = found["labels"].argsort()
    torch.testing.assert_close(found["boxes"][order], true["boxes"], rtol=0, atol=1e-3)


def rows(out: str, metric: str) -> dict[str, float]:
    """Returns the metric of each network that an example prints, in percent."""
    found = re.findall(rf"^(.+): [\d.]+% of the FLOPs, {metric} ([\d.]+) \(", out, re.MULTILINE)
    return {name: float(value) for name, value in found}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric", "least"),
    [("segment_digits.py", "mIoU", 70), ("detect_digits.py", "mAP", 65)],
)
def test_scenes_of_digits(
    example: Example, tmp_path: Path, name: str, metric: str, least: float
) -> None:
    out = example(name, "--trials", "12", "--epochs", "3", "--out", tmp_path / "run")
    base, plain, rival, _, cut, trained = rows(out, metric).values()
    assert base > least
    assert cut > plain + 20
    assert cut > rival - 5
    assert trained > max(cut, base - 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolo11n", "yolov8n"])
def test_yolo(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip(
            "ultralytics is not installed: its licence is the AGPL, so nothing asks for it"
        )
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    out = example("yolo.py", "--name", name, "--out", tmp_path / "run")
    prunable = re.search(
        r"^\d+ groups, ([\d.]+)% of the MACs; 0 failed the proof$", out, re.MULTILINE
    )
    assert prunable is not None, out
    assert float(prunable[1]) >= 98
    assert "10 trials; the best: loss " in out
    (cut, share) = re.findall(r"^(\d+) params, ([\d.]+)% of all$", out, re.MULTILINE)[0]
    assert float(share) < 75
    told = r"^a step in Ultralytics' trainer: (\d+) params, loss ([\d.]+)$"
    (trained, value) = re.findall(told, out, re.MULTILINE)[0]
    assert trained == cut
    assert float(value) > 0
    (moved, count) = re.findall(r"^moved (\d+) of (\d+) tensors$", out, re.MULTILINE)[0]
    assert int(moved) > 0.9 * int(count)
    assert {path.name for path in (tmp_path / "run" / "exported").iterdir()} >= {"plan.json"}


@pytest.mark.slow
def test_stamp(example: Example) -> None:
    out = example("stamp.py", "--episodes", "100", "--trials", "32")
    plan, seeded, *others = (float(x) for x in re.findall(r"\d\.\d{3}", out))
    assert len(others) == 2
    assert seeded < plan < 1  # by guessing 2.3


def test_the_mask_of_a_set_does_not_hang_on_its_order() -> None:
    stamp = loaded("stamp.py")
    torch.manual_seed(0)
    generator = stamp.MaskGenerator(stamp.Base()).double()
    generator.base[0].double()
    images = torch.rand(12, 1, 8, 8).double()
    for own, other in zip(generator(images), generator(images.flip(0)), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-14)
    assert not torch.equal(generator(images)[0], generator(images**2)[0])


def test_masks_are_all_or_nothing_and_chances_have_the_gradient() -> None:
    stamp = loaded("stamp.py")
    torch.manual_seed(0)
    base = stamp.Base()
    generator = stamp.MaskGenerator(base)
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    loss = generator.loss(images, images, labels)
    chances = torch.cat(generator(images))
    hard = [(own > 0.5).float() for own in generator(images)]
    kept = torch.cat(hard).mean()
    assert 0.2 < kept < 0.8
    task = torch.nn.functional.cross_entropy(base.head(base.features(images, hard)[-1]), labels)
    size = max(0.0, kept / stamp.KEPT - 1) ** 2
    expected = task + 10 * size + 0.1 * (chances * (1 - chances)).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in generator.layers)
    assert all(own.grad is None for own in base.parameters())


@pytest.mark.slow
def test_search_latency(example: Example, tmp_path: Path) -> None:
    out = example(
        "search_latency.py", "--latency", "90%", "--batch", "8", "--trials", "4",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert "latency budget of 90.0% of the base network's" in out


@pytest.mark.slow
def test_own_loop(example: Example, tmp_path: Path) -> None:
    out = example("own_loop.py", "--trials", "8", "--epochs", "12", "--out", tmp_path / "run")
    base, plain, _, cut, trained = (float(x) for x in re.findall(r"accuracy ([\d.]+)", out))
    assert base > 90
    assert cut > plain
    assert trained > max(plain, base - 5)


class Writer:
    """Stands in for a `SummaryWriter` of TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scalars: list[tuple[str, float, int]] = []
        self.texts: list[tuple[str, str]] = []
        written.append(self)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def add_text(self, name: str, text: str) -> None:
        self.texts.append((name, text))


written: list[Any] = []


class Tracking(ModuleType):
    """Stands in for the module of MLflow."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.metrics: list[tuple[str, float, int | None]] = []
        self.tags: list[tuple[str, str]] = []
        self.folders: list[str] = []

    @contextmanager
    def start_run(self, run_name: str) -> Iterator[None]:
        self.name = run_name
        yield

    def log_params(self, params: dict[str, Any]) -> None:
        self.params = params

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics += [(name, value, step) for name, value in metrics.items()]

    def set_tag(self, name: str, value: str) -> None:
        self.tags.append((name, value))

    def log_artifacts(self, folder: str, name: str) -> None:
        self.folders.append(f"{name}: {folder}")


@pytest.fixture
def retold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> evosearch.Run:
    """A toy run, which a search and a fine-tuning tell of as real ones do."""
    toy_run(tmp_path / "run", 16)
    run = evosearch.load_run(tmp_path / "run")

    def search(*_: object, callbacks: evosearch.Callbacks, **__: object) -> evosearch.Run:
        callbacks.on_stage("data")
        assert callbacks.on_front is not None
        for trial in run.study.trials:
            callbacks.on_trial(trial)
        callbacks.on_front(run.study.front())
        return run

    def finetune(given: object, *, callbacks: evosearch.Callbacks, **_: object) -> SimpleNamespace:
        assert given is run
        assert callbacks.on_epoch is not None
        network = run.front.knee
        score = network.evaluation.score
        for epoch, loss in ((0, None), (1, 0.5)):
            callbacks.on_epoch(
                EpochRecord(epoch=epoch, epochs=1, train_loss=loss, search=score, seconds=1)
            )
        return SimpleNamespace(
            networks=[SimpleNamespace(test=score)], artifact=SimpleNamespace(folder=tmp_path)
        )

    monkeypatch.setattr(evosearch, "search", search)
    monkeypatch.setattr(evosearch, "finetune", finetune)
    monkeypatch.setattr(sys, "argv", ["example"])
    return run


def curves(run: evosearch.Run) -> dict[str, dict[int, float]]:
    """Returns what was told, by curve and step."""
    complete = {t.number: t for t in run.study.trials if t.is_complete}
    knee = run.front.knee.evaluation.score.loss
    return {
        "loss": {number: trial.loss for number, trial in complete.items()},
        "flops": {number: trial.cost.flops for number, trial in complete.items()},
        "members": {16: len(run.front.members)},
        "least": {16: min(trial.loss for trial in run.front.members)},
        "epoch": {0: knee, 1: knee},
    }


def test_log_tensorboard(retold: evosearch.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    example = loaded("log_tensorboard.py")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SystemExit, match=r"not installed: \.venv/bin/pip install tensorboard"):
        example.main()
    stand_in = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    written.clear()
    example.main()
    (writer,) = written
    found: dict[str, dict[int, float]] = {}
    for name, value, step in writer.scalars:
        found.setdefault(name, {})[step] = value
    assert list(found.pop("epoch/train loss").items()) == [(1, 0.5)]
    names = ("trial/search loss", "trial/FLOPs", "front/members", "front/least search loss")
    expected = curves(retold)
    assert found == dict(zip((*names, "epoch/search loss"), expected.values(), strict=True))
    assert writer.texts[0] == ("stage", "data")


def test_log_mlflow(retold: evosearch.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    example = loaded("log_mlflow.py")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SystemExit, match=r"not installed: \.venv/bin/pip install mlflow"):
        example.main()
    tracking = Tracking()
    monkeypatch.setitem(sys.modules, "mlflow", tracking)
    example.main()
    found: dict[str, dict[int | None, float]] = {}
    for name, value, step in tracking.metrics:
        found.setdefault(name, {})[step] = value
    assert set(found.pop("test_loss")) == set(found.pop("test_accuracy")) == {None}
    names = ("search_loss", "flops", "front_members", "least_search_loss", "epoch_search_loss")
    assert found == dict(zip(names, curves(retold).values(), strict=True))
    assert (tracking.name, tracking.params["trials"]) == ("digits_resnet", 40)
    assert tracking.tags[0] == ("stage", "data")
    assert tracking.folders[0].startswith("network: ")
