"""A user's own files are imported as they are now, and told apart by their code."""

import importlib
import os
import pickle
import subprocess
import sys
from importlib import import_module, metadata

import pytest
import torch

from evosearch import callables
from evosearch.callables import code_digest, files_without_name, resolve_callable
from evosearch.errors import InputError
from evosearch.sourcecode import own_modules

CODE = """
def loss(output, target):
    return output - target

def other():
    return {value}
"""
REWRITTEN = '''
"""A module."""

# A comment.
def loss(output, target):
    """A docstring."""
    return (output
            - target)
def other(): return {value}
'''


@pytest.fixture
def own(tmp_path):
    def write(text=CODE, name="own.py", **values):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(**{"value": 1} | values))
        os.utime(path, ns=(10**9, 10**9))  # neither size nor time tells edits apart
        return path.parent

    return write


def digest(folder, reference="own.py:loss"):
    return code_digest(reference, folder, "[task] loss")


# Importing


def test_a_file_that_was_edited_is_imported_anew(own):
    folder = own()
    first = resolve_callable("own.py:other", folder, "here")
    assert resolve_callable("own.py:other", folder, "here") is first
    own(value=2)
    assert resolve_callable("own.py:other", folder, "here")() == 2
    own()
    assert resolve_callable("own.py:other", folder, "here") is first
    assert first() == 1


def test_importing_writes_nothing_beside_the_file(own):
    folder = own()
    resolve_callable("own.py:other", folder, "here")
    assert [path.name for path in folder.iterdir()] == ["own.py"]


def test_an_edit_that_fails_is_refused_though_the_file_was_fine(own):
    folder = own()
    resolve_callable("own.py:other", folder, "here")
    own("def other(:\n")
    with pytest.raises(InputError, match=r"cannot import 'own\.py': SyntaxError"):
        resolve_callable("own.py:other", folder, "here")
    before = sys.modules["own"]
    with pytest.raises(InputError, match="ZeroDivisionError"):
        resolve_callable("own.py:other", own("1 / 0\n"), "here")
    assert sys.modules["own"] is before
    with pytest.raises(InputError, match="ZeroDivisionError"):
        resolve_callable("fresh.py:other", own("1 / 0\n", name="fresh.py"), "here")
    assert "fresh" not in sys.modules


def test_functions_know_their_file(own):
    folder = own()
    assert resolve_callable("own.py:other", folder, "here").__code__.co_filename == str(
        folder / "own.py"
    )


# Files beside it

IMPORTING = """
import common
from common import scale as factor

def loss(output, target):
    return factor(output) - target

def later():
    import lazy
    return lazy.VALUE, common.VALUE
"""
COMMON = """
import random
VALUE = {value}

def scale(output):
    return output * VALUE
"""


@pytest.fixture
def beside(own):
    """Writes files beside `own.py`, which imports one at once, and one when it is called."""

    def write(value=2, lazy=3, name="own.py"):
        own(IMPORTING, name=name)
        own(COMMON, name=name.replace("own.py", "common.py"), value=value)
        own(f"import common\nVALUE = {lazy}, common.VALUE", name=name.replace("own.py", "lazy.py"))
        return own("raise ImportError", name=name.replace("own.py", "random.py"))

    return write


def test_a_file_imports_those_beside_it(beside):
    folder = beside()
    assert resolve_callable("own.py:loss", folder, "here")(5, 1) == 9
    assert resolve_callable("own.py:later", folder, "here")() == ((3, 2), 2)
    for name in ("common", "lazy"):  # what is pickled of them is looked up there
        assert sys.modules[name].__file__ == str(folder / f"{name}.py")
    assert str(folder) not in sys.path
    names = ["common.py", "lazy.py", "own.py", "random.py"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_files_beside_it_are_as_they_were_read(beside):
    folder = beside()
    before = resolve_callable("own.py:later", folder, "here")
    beside(value=5, lazy=7)
    assert before() == ((3, 2), 2)
    assert resolve_callable("own.py:later", folder, "here")() == ((7, 5), 5)
    assert resolve_callable("own.py:loss", folder, "here")(5, 1) == 24
    beside()
    assert resolve_callable("own.py:later", folder, "here") is before


def test_each_folder_has_files_of_its_own(beside, tmp_path):
    beside()
    beside(value=7, name="elsewhere/own.py")
    assert resolve_callable("own.py:loss", tmp_path, "here")(1, 0) == 2
    assert resolve_callable("own.py:loss", tmp_path / "elsewhere", "here")(1, 0) == 7


def test_two_files_that_import_a_third_share_it(own):
    own("class Boxes:\n    pass", name="common.py")
    own("from common import Boxes\ndef make():\n    return Boxes()", name="net.py")
    folder = own("import common\ndef known(x):\n    return isinstance(x, common.Boxes)")
    made = resolve_callable("net.py:make", folder, "here")()
    assert resolve_callable("own.py:known", folder, "here")(made)


def test_files_that_import_each_other(own):
    own("import own\ndef twice():\n    return 2 * own.VALUE", name="common.py")
    folder = own("import common\nVALUE = 4\ndef loss():\n    return common.twice()")
    assert resolve_callable("own.py:loss", folder, "here")() == 8


def test_a_file_beside_it_that_cannot_be_imported(own):
    folder = own("import common\ndef loss(): ...")
    with pytest.raises(InputError, match=r"'own\.py': ModuleNotFoundError: No .* 'common'"):
        resolve_callable("own.py:loss", folder, "here")
    own("def (", name="common.py")
    with pytest.raises(InputError, match=r"'own\.py': SyntaxError: .*common\.py, line 1"):
        resolve_callable("own.py:loss", folder, "here")


@pytest.mark.slow
def test_networks_of_a_file_that_imports_another_are_traced(own):
    """Builtins of its own are no hindrance to what reads a function's bytecode."""
    own("def twice(x):\n    return 2 * x", name="common.py")
    folder = own(
        "import torch\nimport common\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        return common.twice(x) + len(x.shape)\n"
    )
    net = resolve_callable("own.py:Net", folder, "here")()
    images = torch.ones(1, 2)
    traced = torch.export.export(net, (images,), strict=True).module()
    compiled = torch.compile(net, backend="eager")
    assert [f(images).tolist() for f in (net, traced, compiled)] == [[[4.0, 4.0]]] * 3


# Pickling

CLASSES = """
from dataclasses import dataclass

@dataclass
class Net:
    width: int

def make():
    return Net({value})
"""


def reloaded(pickled, folder):
    """Returns what a fresh process in a folder prints of something that was pickled."""
    code = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", code, pickled.hex()],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_what_a_file_makes_is_pickled_and_loads_where_the_file_is(own):
    folder = own(CLASSES)
    made = resolve_callable("own.py:make", folder, "here")()
    assert reloaded(pickle.dumps(made), folder) == "Net(width=1)"
    assert files_without_name([made]) == []


def test_of_files_of_one_name_the_last_that_was_named_has_it(own):
    first, second = own(CLASSES), own(CLASSES, name="elsewhere/own.py", value=2)
    for folder, width in ((first, 1), (second, 2), (first, 1)):
        made = resolve_callable("own.py:make", folder, "here")()
        assert reloaded(pickle.dumps(made), folder) == f"Net(width={width})"


def test_what_a_file_beside_it_defines_is_pickled(own):
    parts, importing = CLASSES.replace("make", "build"), "from parts import build as make\n"
    folders = []
    for place, value in (("", 1), ("elsewhere/", 2)):
        own(parts, name=f"{place}parts.py", value=value)
        folders.append(own(importing, name=f"{place}own.py"))
    for folder, width in zip((*folders, folders[0]), (1, 2, 1), strict=True):
        made = resolve_callable("own.py:make", folder, "here")()
        assert reloaded(pickle.dumps(made), folder) == f"Net(width={width})"


def test_a_file_that_its_owner_imported_too_is_pickled(own, monkeypatch):
    folder = own(CLASSES, name="imported_before.py")
    monkeypatch.syspath_prepend(folder)
    import_module("imported_before")
    made = resolve_callable("imported_before.py:make", folder, "here")()
    assert reloaded(pickle.dumps(made), folder) == "Net(width=1)"
    del sys.modules["imported_before"]


@pytest.mark.parametrize(
    "name", ["random.py", "colorsys.py", "pytest.py", "my-net.py", "class.py"]
)
def test_a_name_that_is_something_elses_is_not_taken(own, name):
    """Not of Python's, imported or not, not of a package; and not one that is no name."""
    before = sys.modules.get(name.removesuffix(".py"))
    folder = own(CLASSES, name=name)
    made = resolve_callable(f"{name}:make", folder, "here")()
    assert resolve_callable(f"{name}:make", folder, "here")() == made
    assert sys.modules.get(name.removesuffix(".py")) is before
    assert files_without_name([made, 1]) == [str(folder / name)]
    assert "No module named '_evosearch_" in reloaded(pickle.dumps(made), folder)


# Code


def test_code_counts_and_how_it_is_written_does_not(own):
    before = digest(own())
    assert digest(own(REWRITTEN)) == before
    assert digest(own(CODE.replace("- target", "+ target"))) != before
    assert digest(own(value=2)) != before  # it may be what the loss calls
    assert digest(own(), "own.py:other") != before


def test_code_of_the_files_beside_it_counts(beside):
    before = digest(beside())
    assert digest(beside(value=5)) != before
    assert digest(beside(lazy=5)) != before
    assert digest(beside()) == before
    assert digest(beside(name="elsewhere/own.py")) == before


def test_folders_without_a_name_of_their_own_are_followed(tmp_path, monkeypatch):
    """Python itself looks into a namespace package once the package above it is imported."""
    folder = tmp_path / "outermost" / "inner" / "innermost"
    folder.mkdir(parents=True)
    (tmp_path / "outermost" / "__init__.py").write_text("")
    (folder / "module.py").write_text("VALUE = 2")
    monkeypatch.syspath_prepend(tmp_path)
    name = "outermost.inner.innermost.module"
    assert own_modules([name]) == {name: b"VALUE = 2", "outermost": b""}
    assert own_modules(["outermost.nowhere.at_all"]) == {"outermost": b""}


def test_where_a_file_lies_does_not_count(own, tmp_path):
    assert digest(own()) == digest(own(name="elsewhere/own.py"))
    own(name="mine.py")
    assert digest(tmp_path) == digest(tmp_path, "mine.py:loss")


def test_a_function_that_is_a_docstring_alone(own):
    assert digest(own('def loss():\n    """Nothing."""\n')) == digest(
        own('def loss():\n    """Nothing at all."""\n')
    )


# Modules of one's own, that Python imported by name


@pytest.fixture
def on_path(own, monkeypatch, tmp_path):
    """Writes modules that are found by name; what is imported of them is forgotten after it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield own
    forget(set(sys.modules) - before)


def forget(names):
    """Has Python import modules anew, as a new process would."""
    for name in names:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def test_a_module_of_ones_own_goes_by_its_code(on_path, tmp_path):
    on_path(name="my_losses.py")
    before = digest(tmp_path, "my_losses:loss")
    assert digest(tmp_path, "my_losses:loss") == before
    on_path(name="my_losses.py", value=3)
    forget(["my_losses"])
    assert digest(tmp_path, "my_losses:loss") != before


def test_a_module_edited_after_its_import_is_refused(on_path, tmp_path):
    """Else what runs is the old code, and what is kept of it has the new code's name."""
    on_path(name="my_losses.py")
    assert resolve_callable("my_losses:other", tmp_path, "here")() == 1
    on_path(REWRITTEN, name="my_losses.py")
    before = digest(tmp_path, "my_losses:loss")  # the same code, otherwise written
    on_path(name="my_losses.py", value=3)
    for look in (resolve_callable, code_digest):
        with pytest.raises(
            InputError, match=r"here = 'my_losses:loss': .*my_losses\.py was edited"
        ):
            look("my_losses:loss", tmp_path, "here")
    on_path(name="my_losses.py")
    assert digest(tmp_path, "my_losses:loss") == before
    on_path(name="my_losses.py", value=3)
    importlib.reload(sys.modules["my_losses"])
    assert resolve_callable("my_losses:other", tmp_path, "here")() == 3
    assert digest(tmp_path, "my_losses:loss") != before


def test_a_file_that_was_edited_since_is_not_taken_for_the_module_of_its_name(on_path, tmp_path):
    """A file takes its name among Python's modules, where a reference by name finds it."""
    on_path(name="my_losses.py")
    resolve_callable("my_losses.py:other", tmp_path, "here")
    assert resolve_callable("my_losses:other", tmp_path, "here")() == 1
    forget(["my_losses"])
    resolve_callable("my_losses.py:other", tmp_path, "here")
    on_path(name="my_losses.py", value=3)
    with pytest.raises(InputError, match=r"my_losses\.py was edited since"):
        digest(tmp_path, "my_losses:loss")


HELPED = """
import my_tools.scales
from my_tools import offset

def loss(output, target):
    from my_lazy import SIGN
    return SIGN * my_tools.scales.SCALE * (output - target) + offset.OFFSET
"""


@pytest.fixture
def helped(on_path):
    """Writes a loss, as a module and as a file, and the package and the module that it imports."""

    def write(name="my_loss.py", **values):
        values = {"__init__": 0, "scales": 2, "offset": 0, "inner": 1, "my_lazy": 1} | values
        for module in ("__init__", "inner"):
            on_path(f"VALUE = {values[module]}", name=f"my_tools/{module}.py")
        on_path(f"SCALE = {values['scales']}", name="my_tools/scales.py")
        on_path(
            f"from .inner import VALUE\nOFFSET = {values['offset']}", name="my_tools/offset.py"
        )
        on_path(f"SIGN = {values['my_lazy']}", name="my_lazy.py")
        return on_path(HELPED, name=name)

    return write


MODULES = ("my_loss", "my_lazy", *(f"my_tools{m}" for m in ("", ".scales", ".offset", ".inner")))


@pytest.mark.parametrize("reference", ["my_loss:loss", "files/my_loss.py:loss"])
@pytest.mark.parametrize("edited", ["__init__", "scales", "offset", "inner", "my_lazy"])
def test_what_a_loss_imports_counts(helped, tmp_path, reference, edited):
    name = reference.partition(":")[0] if reference.startswith("files") else "my_loss.py"
    helped(name=name)
    before = digest(tmp_path, reference)
    assert resolve_callable(reference, tmp_path, "here")(3, 1) == 4
    assert digest(tmp_path, reference) == before
    helped(name=name, **{edited: 5})
    with pytest.raises(InputError, match="edited since it was imported"):
        resolve_callable(reference, tmp_path, "here")
    forget(MODULES)
    assert digest(tmp_path, reference) != before
    forget(MODULES)
    helped(name=name)
    assert digest(tmp_path, reference) == before


def test_an_installed_module_goes_by_its_code_too(on_path, monkeypatch, tmp_path):
    """A version says nothing of what was edited where it is installed."""
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    on_path(name="site-packages/their_losses.py")
    before = digest(tmp_path, "their_losses:loss")
    on_path(name="site-packages/their_losses.py", value=3)
    assert digest(tmp_path, "their_losses:loss") != before


# Packages


@pytest.mark.parametrize(
    ("reference", "package"),
    [
        ("torch.nn.functional:cross_entropy", "torch"),
        ("torchvision:resnet18", "torchvision"),
        ("evosearch.tasks.classification:accuracy", "evosearch"),
    ],
)
def test_packages_go_by_their_version(reference, package, monkeypatch, tmp_path):
    before = digest(tmp_path, reference)
    assert digest(tmp_path, reference) == before
    version = metadata.version
    monkeypatch.setattr(callables, "version", lambda n: "0.0.1" if n == package else version(n))
    assert digest(tmp_path, reference) != before


def test_code_of_pythons_own(tmp_path):
    assert digest(tmp_path, "operator:sub") != digest(tmp_path, "operator:add")
    assert len({digest(tmp_path, "_operator:sub"), digest(tmp_path, "colorsys:rgb_to_hls")}) == 2


def test_code_that_is_not_there(own):
    with pytest.raises(InputError, match="'los': did you mean 'loss'"):
        digest(own(), "own.py:los")
