"""A user's own files are imported as they are now, and told apart by their code."""

import os
import sys
from importlib import metadata

import pytest

from evosearch import callables
from evosearch.callables import code_digest, resolve_callable
from evosearch.errors import InputError

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
    assert not [name for name in sys.modules if name.startswith("_evosearch_own") and "(" in name]


def test_functions_know_their_file(own):
    folder = own()
    assert resolve_callable("own.py:other", folder, "here").__code__.co_filename == str(
        folder / "own.py"
    )


# Code


def test_code_counts_and_how_it_is_written_does_not(own):
    before = digest(own())
    assert digest(own(REWRITTEN)) == before
    assert digest(own(CODE.replace("- target", "+ target"))) != before
    assert digest(own(value=2)) != before  # it may be what the loss calls
    assert digest(own(), "own.py:other") != before


def test_where_a_file_lies_does_not_count(own, tmp_path):
    assert digest(own()) == digest(own(name="elsewhere/own.py"))
    own(name="mine.py")
    assert digest(tmp_path) == digest(tmp_path, "mine.py:loss")


def test_a_function_that_is_a_docstring_alone(own):
    assert digest(own('def loss():\n    """Nothing."""\n')) == digest(
        own('def loss():\n    """Nothing at all."""\n')
    )


def test_a_module_of_ones_own_goes_by_its_code(own, monkeypatch, tmp_path):
    own(name="my_losses.py")
    monkeypatch.syspath_prepend(tmp_path)
    before = digest(tmp_path, "my_losses:loss")
    own(name="my_losses.py", value=3)
    assert digest(tmp_path, "my_losses:loss") != before
    sys.modules.pop("my_losses")


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
