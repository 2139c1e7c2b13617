"""What the READMEs say that can be checked: links, packages, ranks, commands, space files."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import typer
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from evosearch.cli.app import app
from evosearch.criteria import CRITERIA
from evosearch.refit.building import Build
from evosearch.run.channels import CHOOSERS, TWO_STEP
from evosearch.run.spacefile import SpaceFile
from evosearch.strategies import STRATEGIES
from evosearch.training.penalties import PENALTIES
from evosearch.training.recipes import RECIPES
from evosearch.training.reparametrised import KERNELS, PLAIN
from tests.readmes import ROOT
from tests.test_architecture import RANKS
from tests.test_examples import loaded

HOME = ROOT.parent
LONGEST = 200
"""Lines of the first page that a newcomer reads, at most."""
PLACES = ("evosearch", "search_spaces", "runs/reference")
PAGES = [
    HOME / "README.md",
    HOME / "runs" / "README.md",
    *(path for place in PLACES for path in sorted((HOME / place).rglob("README.md"))),
]
LINKING = sorted({*PAGES, HOME / "CHANGELOG.md", *(HOME / "runs" / "reference").glob("*.md")})
REFERENCE = HOME / "runs" / "reference"
MAP = (ROOT / "README.md").read_text()


def blocks(page: Path, language: str = "") -> list[str]:
    """Returns the fenced blocks of a page in a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [body for named, body in found if named == language]


def anchors(page: Path) -> set[str]:
    """Returns the fragments by which the headings of a page are linked."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_first_page_is_short() -> None:
    assert len((HOME / "README.md").read_text().splitlines()) <= LONGEST


def test_the_first_page_names_every_method() -> None:
    table = (HOME / "README.md").read_text().partition("## Methods\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([^`]+)`", table))
    methods = {*STRATEGIES, *RECIPES, *PENALTIES, *KERNELS, *get_args(Build), *CHOOSERS}
    assert methods - named == {TWO_STEP, PLAIN}
    assert f"| {len(CRITERIA)}: " in table
    examples = {path.name for path in (HOME / "scripts" / "examples").glob("*.py")}
    assert {name for name in named if name.endswith(".py")} <= examples


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(HOME)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    broken = []
    for link in links:
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_map_names_every_package_once() -> None:
    rows = re.findall(r"^\| `(.+?)` *(?:, `(.+?)` *)?\|", MAP, re.MULTILINE)
    named = sorted(name.removesuffix(".py") for row in rows for name in row if name)
    packages = [path.parent.relative_to(ROOT) for path in ROOT.rglob("__init__.py")]
    assert named == sorted({str(path) for path in packages} - {"."} | {"api"})


def test_every_readme_of_a_package_is_on_the_map() -> None:
    found = {str(path.relative_to(ROOT)) for path in ROOT.rglob("README.md")} - {"README.md"}
    assert found <= set(re.findall(r"\]\(([\w/]+README\.md)\)", MAP))


def test_the_ranks_on_the_map_are_those_that_are_held() -> None:
    (drawn,) = blocks(ROOT / "README.md")
    lines = [line.split() for line in drawn.splitlines()]
    assert [int(rank) for rank, *_ in lines] == list(reversed(range(len(RANKS))))
    assert [set(parts) for _, *parts in lines] == [set(parts) for parts in reversed(RANKS)]


def test_every_reference_page_is_in_the_index() -> None:
    rows = re.findall(r"^\| \[[\w ]+\]\(([\w.-]+)\)", (REFERENCE / "README.md").read_text(), re.M)
    assert sorted(rows) == sorted(path.name for path in REFERENCE.glob("2*.md"))


def test_commands_and_their_options_exist() -> None:
    shown = [
        line
        for page in PAGES
        for body in [*blocks(page), *re.findall(r"`(evosearch [a-z][^`]*)`", page.read_text())]
        for line in re.findall(r"^(?:\$ )?evosearch (.+)$", body, re.MULTILINE)
    ]
    assert len(shown) > 25
    group = typer.main.get_command(app)
    used = set()
    for line in shown:
        words, command = iter(line.split()), group
        while hasattr(command, "commands"):
            command = command.commands[next(words)]
        options = {name for parameter in command.params for name in parameter.opts}
        assert set(re.findall(r"--[a-z][a-z-]*", line)) <= options, line
        used.add(command.name)
    assert used == {"new", *group.commands} - {"space"}


@pytest.mark.parametrize("page", [HOME / "README.md", HOME / "search_spaces" / "README.md"])
def test_space_files_are_valid(page: Path) -> None:
    (text,) = blocks(page, "toml")
    space = SpaceFile.model_validate(tomllib.loads(text))
    assert space.data.name == "imagefolder"


@pytest.mark.slow
def test_the_program_of_the_first_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = blocks(HOME / "README.md", "python")
    monkeypatch.chdir(HOME)
    limits = f'flops="30%..70%", trials=4, out={str(tmp_path / "run")!r}'
    assert code.count('flops="30%..70%"') == 1
    code = code.replace('flops="30%..70%"', limits)
    assert "then run.finish(network)" in code
    own_loop, digits = loaded("own_loop.py"), load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    labels = torch.from_numpy(digits.target)
    train = {"images": images[:1300], "labels": labels[:1300]}
    names: dict[str, Any] = {"net": own_loop.make_model(), **train}
    names["dataset"] = TensorDataset(images[1300:], labels[1300:])
    torch.manual_seed(0)
    own_loop.fit(names["net"], *train.values(), epochs=10, lr=0.1)
    exec(compile(code, "README.md", "exec"), names)
    own_loop.fit(names["network"], *train.values(), epochs=1, lr=0.01)
    done = names["run"].finish(names["network"])
    assert done.networks[-1].test.accuracy > 0.9
