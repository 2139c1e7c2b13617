"""A model, images and a task as objects: the same runs as by name, and no others gone on with."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import evosearch
from evosearch.errors import InputError
from evosearch.models.weights import save_weights, weights_digest
from evosearch.objects import MODEL, given, is_given, object_of
from evosearch.run.folder import RunFolder
from evosearch.study.front import ParetoFront
from evosearch.study.study import Study
from evosearch.tasks.task import Task
from tests.test_cli import InProcess, run  # noqa: F401  (a fixture)
from tests.toys import comparable

NET = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )
"""
SPACE = """
[model]
build = "objects_net.py:make"
input = [1, 6, 6]
weights = "net.safetensors"
[data]
name = "objects_data.py:load"
calibration = 9
search = 18
[search]
strategy = "random"
device = "cpu"
"""
DATA = """
import numpy as np

def load():
    kept = np.load("images.npz")
    return (kept["a"], kept["b"]), (kept["c"], kept["d"])
"""
TRIALS = 6
SECTIONS = {"search": {"strategy": "random", "device": "cpu"}, "finetune": {"epochs": 1}}


def squared(output: Tensor, target: Tensor) -> Tensor:
    """A loss of one's own."""
    return (output - functional.one_hot(target, 3)).square().sum(1)


def correct(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(1) == target).float()


def make() -> nn.Module:
    names: dict[str, Any] = {}
    exec(NET, names)
    torch.manual_seed(0)
    model: nn.Module = names["make"]()
    return model


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes of three kinds that a network can tell apart, in noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    rows, columns = np.indices((6, 6)) % 2
    kinds = np.stack([rows, columns, (rows + columns) % 2]).astype(np.float32)
    return kinds[labels][:, None] + rng.normal(0, 0.3, (count, 1, 6, 6)).astype(np.float32), labels


TRAIN, TEST = images(90, 0), images(30, 1)


def tensors(pair: tuple[np.ndarray, np.ndarray]) -> TensorDataset:
    return TensorDataset(*map(torch.from_numpy, pair))


def search(model: nn.Module, out: Path, trials: int = TRIALS, **given: Any) -> evosearch.Run:
    given = {"train": TRAIN, "test": TEST, "sections": SECTIONS, **given}
    return evosearch.search(model=model, flops="60%", trials=trials, out=out, anyway=True, **given)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return make()


@pytest.fixture(scope="module")
def whole(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> evosearch.Run:
    """A run that nothing stopped."""
    return search(net, tmp_path_factory.mktemp("objects") / "whole", task=own_task())


def own_task(loss: Callable[..., Tensor] = squared) -> Task:
    return Task(loss=loss, metric=correct)


def reread(run: evosearch.Run, **others: Any) -> evosearch.Run:  # noqa: F811
    """Returns a run as a later process reads it, with objects that are equal to the first ones."""
    again = {"model": make(), "train": TRAIN, "test": TEST, "task": own_task(), **others}
    return evosearch.load_run(run.folder, **again)


def test_a_killed_run_goes_on_with_equal_objects_to_the_same_study(
    net: nn.Module, whole: evosearch.Run, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(trial: Any) -> None:
        if trial.number == 2:
            raise Killed

    with pytest.raises(Killed):
        search(
            net, tmp_path / "run", task=own_task(), callbacks=evosearch.Callbacks(on_trial=kill)
        )
    assert len(Study.open(tmp_path / "run").trials) == 3
    read = evosearch.load_run(
        tmp_path / "run",
        model=make(),
        train=DataLoader(tensors(TRAIN), batch_size=7, shuffle=True),
        test=tensors(TEST),
        task=own_task(),
    )
    resumed = evosearch.resume(read)
    assert comparable(resumed.study.trials) == comparable(whole.study.trials)
    assert resumed.objects == read.objects


def test_objects_give_the_run_that_names_give(tmp_path: Path) -> None:
    model = make()
    (tmp_path / "objects_net.py").write_text(NET)
    (tmp_path / "objects_data.py").write_text(
        DATA.replace('"images.npz"', repr(str(tmp_path / "images.npz")))
    )
    (tmp_path / "space.toml").write_text(SPACE)
    save_weights(model, tmp_path / "net.safetensors")
    np.savez(tmp_path / "images.npz", **dict(zip("abcd", (*TRAIN, *TEST), strict=True)))
    named = evosearch.search(
        tmp_path / "space.toml", flops="60%", trials=4, out=tmp_path / "named", anyway=True
    )
    handed = search(model, tmp_path / "handed", 4)
    assert comparable(handed.study.trials) == comparable(named.study.trials)
    assert handed.study.header.identity == named.study.header.identity
    assert handed.study.header.space_digest == named.study.header.space_digest
    with pytest.raises(InputError, match="made from a space file: leave the objects out"):
        reread(named)


def test_what_is_given_stays_as_it_was(net: nn.Module, whole: evosearch.Run) -> None:
    assert net.training
    assert weights_digest(net) == weights_digest(make())
    assert not is_given(MODEL)
    assert set(whole.objects) == {"object:model", "object:data", "object:task"}


def changed_weights() -> nn.Module:
    model = make()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1e-3
    return model


def changed(pair: tuple[np.ndarray, np.ndarray], part: int) -> tuple[np.ndarray, np.ndarray]:
    arrays = [array.copy() for array in pair]
    arrays[part].flat[0] += 1
    return arrays[0], arrays[1]


CHANGES: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "weights": (lambda: {"model": changed_weights()}, "the weights of the base network;"),
    "graph": (
        lambda: {"model": nn.Sequential(*list(make())[:4], nn.SiLU(), *list(make())[5:])},
        r"the model's graph \(its code\);",
    ),
    "image": (
        lambda: {"test": changed(TEST, 0)},
        r"the test split \(1 changed in place: image 90\)",
    ),
    "label": (lambda: {"train": changed(TRAIN, 1)}, r"splits? \(1 relabelled: image 0\)"),
    "task": (
        lambda: {"task": own_task(lambda output, target: 2 * squared(output, target))},
        r"the code of the task",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_objects_are_refused_by_name(whole: evosearch.Run, name: str) -> None:
    other, words = CHANGES[name]
    with pytest.raises(InputError, match=f"no longer the same: .*{words}") as caught:
        evosearch.resume(reread(whole, **other()), trials=TRIALS + 1)
    assert "\n" not in str(caught.value)
    assert len(Study.open(whole.folder).trials) == TRIALS


def test_a_command_line_does_what_needs_no_model_and_says_how_to_go_on(
    run: InProcess,  # noqa: F811
    whole: evosearch.Run,
    tmp_path: Path,
) -> None:
    folder = whole.folder
    assert run("pareto", folder, cwd=tmp_path).returncode == 0
    assert run("pareto", folder, "--at", "flops=55%", cwd=tmp_path).returncode in (0, 2)
    for command in (["resume"], ["finetune", "--epochs", "1"], ["cut"]):
        done = run(command[0], folder, *command[1:], cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr == (
            f"evosearch: {folder}: made from objects of a program, which a command has not; go on"
            f" in Python: run = evosearch.load_run({str(folder)!r}, model=..., train=...,"
            " test=...), and then evosearch.resume(run) or evosearch.finetune(run)\n"
        )


def test_the_front_is_told_whenever_a_trial_enters_it(net: nn.Module, tmp_path: Path) -> None:
    fronts: list[ParetoFront] = []
    trials: list[Any] = []
    callbacks = evosearch.Callbacks(on_front=fronts.append, on_trial=trials.append)
    found = search(net, tmp_path / "run", callbacks=callbacks)
    entered = []
    for count in range(1, TRIALS + 1):
        front = ParetoFront(
            trials=trials[:count], budget=found.study.budget, size=found.study.header.resource
        )
        if trials[count - 1] in front.members:
            entered.append(front.members)
    assert [front.members for front in fronts] == entered
    assert len(entered) >= 2
    assert fronts[-1].members == found.front.members


# A network that was trained elsewhere


def trained(network: nn.Module) -> nn.Module:
    """Trains a network by a step of one's own."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    batch, labels = map(torch.from_numpy, TRAIN)
    functional.cross_entropy(network(batch), labels).backward()
    optimizer.step()
    return network


def test_a_network_from_a_loop_of_ones_own_is_finished(
    whole: evosearch.Run, tmp_path: Path
) -> None:
    network = trained(whole.network())
    before = weights_digest(network)
    done = whole.finish(network)
    assert weights_digest(network) == before
    assert network.training
    plan = whole.pick()
    title = f"{plan.name}, own training"
    assert [n.name for n in done.networks[-2:]] == [plan.name, title]
    assert all(n.test is not None and n.test.images == len(TEST[1]) for n in done.networks)
    with torch.no_grad():
        losses = squared(copy.deepcopy(network).eval()(torch.from_numpy(TEST[0])), _labels(TEST))
    assert done.networks[-1].test is not None
    assert done.networks[-1].test.loss == pytest.approx(float(losses.mean()), rel=1e-5)
    assert done.artifact.folder.parent == RunFolder(whole.folder).artifacts
    loaded = evosearch.load_artifact(done.artifact.folder).load(make)
    assert weights_digest(loaded) == before

    opened = done.test_opened
    again = evosearch.load_run(whole.folder, **_objects()).finish(network)
    assert again.test_opened == opened  # each network once
    with pytest.raises(InputError, match="measured on test with other weights"):
        whole.finish(trained(network))
    other = whole.finish(network, name="one more step")
    assert other.networks[-1].name == f"{plan.name}, one more step"

    evosearch.export_artifact(done.artifact.folder, to=tmp_path / "copy")
    with pytest.raises(InputError, match="made from an object of a program; give --space FILE"):
        evosearch.export_artifact(done.artifact.folder, to=tmp_path / "onnx", format="onnx")


def _labels(pair: tuple[np.ndarray, np.ndarray]) -> Tensor:
    return torch.from_numpy(pair[1])


def _objects() -> dict[str, Any]:
    return {"model": make(), "train": TRAIN, "test": TEST, "task": own_task()}


def test_a_name_of_a_training_has_a_folder_of_its_own(whole: evosearch.Run) -> None:
    done = whole.finish(whole.network(), name="no-step")
    with pytest.raises(InputError, match=r"'no step' names the folder of .*, no-step; give"):
        whole.finish(trained(whole.network()), name="no step")
    assert evosearch.load_artifact(done.artifact.folder).card["plan"].endswith(", no-step")


def test_another_task_than_that_of_a_run_is_refused(net: nn.Module, tmp_path: Path) -> None:
    found = search(net, tmp_path / "run", 1)
    for task in ("regression", own_task()):
        with pytest.raises(InputError, match="its task is 'classification', by that name: leave"):
            reread(found, task=task)
    assert reread(found, task="classification").folder == found.folder


def test_a_network_that_is_not_the_plans_is_refused(whole: evosearch.Run) -> None:
    members = whole.front.members
    first, last = (whole.network(member.number) for member in (members[0], members[-1]))
    unnamed = make()
    unnamed.load_state_dict(make().state_dict())
    cases: list[tuple[nn.Module, dict[str, Any], str]] = [
        (make(), {}, "does not say which plan"),
        (make(), {"pick": members[0].number}, r"is not trial \d+ of this run: \d\.\w+ is \("),
        (last, {"pick": members[0].number}, f"the network is trial {members[-1].number} of its"),
        (first.double(), {}, "float64, expected .* float32"),
        (last, {"name": "a/b"}, "expected a few words"),
        (last, {"name": 3}, "name = 3: expected a few words"),
    ]
    for network, named, words in cases:
        with pytest.raises(InputError, match=words):
            whole.finish(network, **named)


def test_a_part_of_an_object_is_searched_and_finished(tmp_path: Path) -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = list(make())
            self.body, self.head = nn.Sequential(*layers[:5]), nn.Sequential(*layers[5:])

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.head(self.body(images))
            return found

    sections = {**SECTIONS, "model": {"part": "body"}}
    found = search(Halves(), tmp_path / "run", 2, sections=sections)
    assert found.study.header.sizes == {"body.0": 6}
    again = evosearch.load_run(found.folder, model=Halves(), train=TRAIN, test=TEST)
    assert len(evosearch.resume(again, trials=3).study.trials) == 3
    done = again.finish(again.network())
    assert isinstance(done.artifact.load(Halves), Halves)


# Bad input

CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "nothing": (lambda: evosearch.search(flops="50%"), "give a space file, or model="),
    "both": (
        lambda: evosearch.search("s.toml", model=make(), flops="50%"),
        "model= goes with objects, and s.toml names the model",
    ),
    "no module": (
        lambda: evosearch.search(model="net", train=TRAIN, test=TEST, flops="50%"),  # type: ignore[arg-type]
        "model: expected a torch.nn.Module, got a str",
    ),
    "no images": (lambda: evosearch.search(model=make(), flops="50%"), "train= is missing"),
    "no test": (
        lambda: evosearch.cut(model=make(), train=TRAIN, flops="50%"),
        "test= is missing: a dataset, arrays",
    ),
    "no dataset": (
        lambda: evosearch.search(model=make(), train=3, test=TEST, flops="50%"),
        "train: expected arrays .images, labels., or a dataset",
    ),
    "flat images": (
        lambda: evosearch.search(model=make(), train=(TRAIN[1], TRAIN[1]), test=TEST, flops="9%"),
        "train: expected images .images, channels, height, width",
    ),
    "task": (
        lambda: evosearch.search(
            model=make(), train=TRAIN, test=TEST, task="segmentatoin", flops="50%"
        ),
        "sections: task.name: Input should be 'classification'",
    ),
    "task object": (
        lambda: evosearch.search(model=make(), train=TRAIN, test=TEST, task=3, flops="50%"),  # type: ignore[arg-type]
        "task: expected a name or a Task",
    ),
    "section": (
        lambda: evosearch.search(
            model=make(), train=TRAIN, test=TEST, flops="50%", sections={"data": {"root": "x"}}
        ),
        r"sections: \[data\] root names what was given as an object",
    ),
    "section by itself": (
        lambda: evosearch.search(
            model=make(),
            train=TRAIN,
            test=TEST,
            flops="50%",
            sections={"data": "digits"},  # type: ignore[dict-item]
        ),
        "sections: expected a dict of dicts, such as",
    ),
    "list of sections": (
        lambda: evosearch.inspect(model=make(), input=(1, 6, 6), sections=["groups"]),  # type: ignore[arg-type]
        "sections: expected a dict of dicts, such as",
    ),
    "held out": (
        lambda: evosearch.search(
            model=make(), train=TRAIN, test=TEST, held_out={"val": TEST}, flops="50%"
        ),
        "unknown split 'val'",
    ),
    "held out list": (
        lambda: evosearch.search(
            model=make(),
            train=TRAIN,
            test=TEST,
            held_out=[TEST],
            flops="50%",  # type: ignore[arg-type]
        ),
        "held_out: expected a dict of splits, any of",
    ),
    "held out twice": (
        lambda: evosearch.cut(
            model=make(),
            train=TRAIN,
            test=TEST,
            held_out={"search": changed(TEST, 1)},
            flops="50%",
        ),
        "30 images of the test split are in the search split too",
    ),
    "key": (
        lambda: evosearch.search(
            model=make(), train=TRAIN, test=TEST, flops="50%", sections={"data": {"saerch": 3}}
        ),
        r"sections: \[data\]: .*saerch",
    ),
    "workers": (
        lambda: evosearch.search(model=make(), train=TRAIN, test=TEST, flops="50%", workers=2),
        "--workers takes processes of its own, which have no objects",
    ),
    "latency": (
        lambda: evosearch.search(model=make(), train=TRAIN, test=TEST, latency="50%"),
        "--latency takes processes of its own",
    ),
    "trained": (
        lambda: evosearch.train(model=make(), train=TRAIN, test=TEST),
        "weights are given, so there is nothing to train",
    ),
    "fresh": (
        lambda: evosearch.train(model=make(), train=TRAIN, test=TEST, flops="50%"),
        "the network comes trained, and this training begins with fresh weights",
    ),
    "rewound": (
        lambda: evosearch.train(
            model=make(),
            train=TRAIN,
            test=TEST,
            flops="50%",
            sections={"prune": {"weights": "base", "drop": 0.5, "rewind": "fresh"}},
        ),
        'rewind = "start"',
    ),
    "no shape": (lambda: evosearch.inspect(model=make()), "input= is missing"),
}


@pytest.mark.parametrize("name", CALLS)
def test_bad_objects_are_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, words = CALLS[name]
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


# The rest


def test_cut_and_inspect_take_a_model(net: nn.Module, whole: evosearch.Run) -> None:
    found = evosearch.inspect(model=net, input=(1, 6, 6), sections={"groups": {"min_keep": 2}})
    assert found.discovery.space.sizes == whole.study.header.sizes
    assert set(found.discovery.space.least_widths.tolist()) == {2}
    done = evosearch.cut(model=net, train=TRAIN, test=TEST, flops="50%", anyway=True)
    space = evosearch.inspect(model=net, input=(1, 6, 6)).discovery.space
    assert 0 < done.plan.cost.macs <= space.base_cost.macs // 2
    assert done.network(torch.zeros(2, 1, 6, 6)).shape == (2, 3)


def test_a_share_of_the_training_images_is_set_aside(whole: evosearch.Run) -> None:
    from evosearch.run.config import read_run_config

    data = read_run_config(whole.folder).space.data
    assert (data.calibration, data.search) == (90 // 10, 90 // 5)


def test_images_that_are_held_out_are_not_taken_out_of_the_training_images(
    net: nn.Module, tmp_path: Path
) -> None:
    held_out = {"search": images(24, 2)}
    found = search(net, tmp_path / "run", 2, held_out=held_out)
    assert found.study.header.base.search.images == 24
    again = evosearch.load_run(
        found.folder, model=make(), train=TRAIN, test=TEST, held_out=held_out
    )
    assert len(evosearch.resume(again, trials=3).study.trials) == 3
    without = evosearch.load_run(found.folder, model=make(), train=TRAIN, test=TEST)
    with pytest.raises(InputError, match="search is missing, and 'object:data' brings no"):
        evosearch.resume(without, trials=4)


def test_a_name_means_an_object_only_inside_the_call() -> None:
    with given({MODEL: make}):
        assert object_of(MODEL, "[model] build") is make
        with given({}), pytest.raises(InputError, match="an object of a program"):
            object_of(MODEL, "[model] build")
        assert is_given(MODEL)
    assert not is_given(MODEL)


def test_a_training_under_a_budget_takes_objects_and_its_network_is_tuned(
    net: nn.Module, tmp_path: Path
) -> None:
    sections = {
        **SECTIONS,
        "prune": {"weights": "base"},
        "train": {"epochs": 1, "batch_size": 30},
        "search": {"device": "cpu"},
    }
    done = evosearch.train(
        model=net, train=TRAIN, test=TEST, flops="60%", sections=sections, out=tmp_path / "run"
    )
    assert isinstance(done, evosearch.Run)
    again = evosearch.load_run(done.folder, model=make(), train=TRAIN, test=TEST)
    assert comparable(evosearch.resume(again).study.trials) == comparable(done.study.trials)
    assert [n.name for n in evosearch.finetune(again, epochs=1).networks][-1].endswith("1 epochs")
