"""The code in the READMEs beside the packages, for tests that follow the steps as written."""

import re
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import evosearch

ROOT = Path(evosearch.__file__).parent


def code_blocks(package: str, language: str) -> list[str]:
    """Returns the blocks of a language in a package's README, in order."""
    text = (ROOT / package / "README.md").read_text()
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found, f"{package}/README.md has no {language}"
    return found


def inline_code(package: str, begins: str) -> str:
    """Returns the one inline code of a package's README that begins so."""
    text = (ROOT / package / "README.md").read_text()
    (found,) = re.findall(rf"`({re.escape(begins)}[^`]*)`", text)
    return str(found)


def edited(module: ModuleType, *edits: tuple[str, str]) -> ModuleType:
    """Returns a copy of a module whose source was edited; the module itself stays as it is.

    Args:
        module: whose file is read.
        edits: text that occurs once, and what takes its place.
    """
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    for before, after in edits:
        assert source.count(before) == 1, f"{before!r} is not once in {module.__file__}"
        source = source.replace(before, after)
    name = f"{module.__name__}_edited"
    spec = spec_from_loader(name, loader=None)
    assert spec is not None
    copy = module_from_spec(spec)
    exec(compile(source, f"{module.__file__} (edited)", "exec"), vars(copy))
    return copy
