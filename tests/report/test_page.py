"""The HTML page: what it holds is what the study holds, and it opens without complaint."""

import json
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evosearch.cli import main
from evosearch.report.page import render_page, write_page
from evosearch.report.pagedata import convergence, page_json
from evosearch.report.pareto import ParetoView
from evosearch.report.searches import reference_point
from evosearch.study.front import ParetoFront
from evosearch.study.study import Study
from tests.report.browser import BROWSER, Page, browser_page
from tests.report.toyrun import ODD, toy_run, write_card, write_finals

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium or Chrome on the path to open the page with"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a baseline and an artifact, in a folder with a hostile name."""
    place = tmp_path_factory.mktemp("page") / "a<b>&'c\""
    study = toy_run(place, 60)
    toy_run(place / "baselines" / "random", 30, seed=5, strategy="random")
    write_card(place, f"trial {study.front().knee.number}")
    write_finals(place)
    return place


class Scripts(HTMLParser):
    """Collects the content of script elements by their id, and every address asked for."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.addresses: list[str] = []
        self._open: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "script":
            self._open = named.get("id") or "code"

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.texts[self._open] = self.texts.get(self._open, "") + data


def test_the_page_holds_what_pareto_prints_and_asks_for_nothing(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("plotly")
    write_page(folder, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    scripts = Scripts(page)
    monkeypatch.setattr("sys.argv", ["evosearch", "pareto", str(folder), "--json"])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(scripts.texts["pareto-data"]) == json.loads(capsys.readouterr().out)
    assert scripts.addresses == []
    assert "<title>evosearch: a&lt;b&gt;&amp;&#x27;c&quot;</title>" in page
    assert page.count("</script>") == 4
    assert ODD not in page


def test_every_number_is_that_of_the_study(folder: Path) -> None:
    view = ParetoView.read(folder)
    content = json.loads(json.dumps({**view.to_json(), **page_json(view)}))
    study = Study.open(folder)
    base = study.header.base_cost
    feasible = [t for t in study.trials if t.is_complete and t.duplicate_of is None]
    rows = {row["trial"]: row for row in content["front"] + content["dominated"]}
    assert set(rows) == {trial.number for trial in feasible}
    for trial in feasible:
        row, evaluation = rows[trial.number], trial.evaluation
        assert evaluation is not None
        widths = row["widths"]
        kept = widths if isinstance(widths, list) else [widths[g] for g in content["sizes"]]
        assert kept == list(trial.mask.widths.values())
        assert (row["flops"], row["params"]) == (2 * trial.cost.macs, trial.cost.params)
        assert row["flops_ratio"] == trial.cost.macs / base.macs
        for name in ("loss", "loss_se", "accuracy"):
            assert row[name] == getattr(evaluation.score, name)
        assert (row["accuracy_low"], row["accuracy_high"]) == evaluation.score.accuracy_interval
    beaten = {
        t.number
        for t in feasible
        if any(o.cost.macs <= t.cost.macs and loss(o) <= loss(t) and o is not t for o in feasible)
    }
    assert {row["trial"] for row in content["dominated"]} == beaten
    for group, counts in content["kept"].items():
        masks = [study.trials[row["trial"]].mask[group] for row in content["front"]]
        assert counts == np.sum(masks, axis=0).tolist()
    assert content["failed"] == sum(t.error is not None for t in study.trials)


def loss(trial: Any) -> float:
    return float(trial.evaluation.score.loss)


def test_convergence_is_the_hypervolume_of_every_prefix(folder: Path) -> None:
    study = Study.open(folder)
    front = study.front()
    reference = reference_point(study, front)
    columns = convergence(front, reference)
    volumes = dict(zip(columns["evaluations"], columns["hypervolume"], strict=True))
    seconds = dict(zip(columns["evaluations"], columns["seconds"], strict=True))
    latest, spent, done = 0.0, 0.0, 0
    for end, trial in enumerate(study.trials, 1):
        if trial.duplicate_of is not None:
            continue
        spent += sum(step.seconds for step in trial.steps)
        if not trial.is_complete:
            continue
        done += 1
        prefix = ParetoFront(trials=study.trials[:end], budget=study.budget, size=front.size)
        latest = volumes.get(done, latest)
        assert latest == pytest.approx(prefix.hypervolume(reference), abs=1e-12)
        if done in seconds and done < max(seconds):
            assert seconds[done] == pytest.approx(spent)
    assert columns["hypervolume"][-1] == pytest.approx(front.hypervolume(reference))
    assert columns["seconds"][-1] == pytest.approx(spent)


def test_commands_quote_the_folder(folder: Path) -> None:
    commands = page_json(ParetoView.read(folder))["commands"]
    assert "a<b>&'\"'\"'c\"' --pick" in commands["finetune"]
    assert commands["resume"].endswith("--trials 120")
    assert "artifacts/trial-" in commands["export"]


def test_an_empty_run_has_a_page_too(tmp_path: Path) -> None:
    toy_run(tmp_path / "run", 0)
    (tmp_path / "run" / "environment.json").write_text("{")
    (tmp_path / "run" / "config.toml").unlink()
    page = Scripts(render_page(ParetoView.read(tmp_path / "run"), ""))
    content = json.loads(page.texts["page-data"])
    assert (content["environment"], content["config"], content["dominated"]) == (None, None, [])


def test_the_proof_of_each_group_is_shown_where_the_run_keeps_it(tmp_path: Path) -> None:
    toy_run(tmp_path / "run", 4)
    proof = {"stem": {"error": 1e-15, "effect": 0.5}}
    (tmp_path / "run" / "proof.json").write_text(json.dumps(proof))
    groups = page_json(ParetoView.read(tmp_path / "run"))["groups"]
    assert [group["proof"] for group in groups] == [proof["stem"], None, None]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser_page(tmp_path_factory.mktemp("browser")) as page:
        yield page


@needs_browser
@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)]
)
def test_it_opens_on_any_screen_without_an_error(
    width: int, dark: bool, folder: Path, tmp_path: Path, browser: Page
) -> None:
    pytest.importorskip("plotly")
    write_page(folder, tmp_path / "page.html")
    browser.errors.clear()
    browser.open(tmp_path / "page.html", width=width, dark=dark)
    assert browser.errors == []
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("document.querySelectorAll('.js-plotly-plot').length") == 5
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 24, 29)") == dark
    members = browser.run("document.querySelectorAll('#members tbody tr').length")
    assert members == len(Study.open(folder).front().members)
    assert browser.run("document.querySelector('#frozen').textContent").endswith(ODD)
    assert ODD in browser.run("document.querySelector('#config').textContent")


@needs_browser
def test_clicking_a_point_shows_its_plan_and_command(
    folder: Path, tmp_path: Path, browser: Page
) -> None:
    pytest.importorskip("plotly")
    write_page(folder, tmp_path / "page.html")
    browser.open(tmp_path / "page.html", width=1280)
    knee = Study.open(folder).front().knee.number
    command = "document.querySelector('#plan-command').textContent"
    assert browser.run(command).endswith(f"--pick {knee}")
    # The place of the first member on the chart, from the page's own axes.
    place = browser.run(
        "(() => { const g = document.querySelector('#front-chart'), l = g._fullLayout,"
        " b = g.getBoundingClientRect(), t = g.data.find((d) => d.name === 'front');"
        " return [b.x + l.xaxis._offset + l.xaxis.d2p(t.x[0]),"
        " b.y + l.yaxis._offset + l.yaxis.d2p(t.y[0]), t.customdata[0]]; })()"
    )
    browser.click(place[0], place[1])
    deadline = time.monotonic() + 5
    while browser.run(command).endswith(f"--pick {knee}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert browser.run(command).endswith(f"--pick {place[2]}")
    trial = Study.open(folder).trials[place[2]]
    shown = browser.run("document.querySelector('#plan').textContent")
    for group, width in trial.mask.widths.items():
        assert f"{group} {width}/{trial.mask[group].size}" in shown
    assert browser.errors == []


@needs_browser
def test_a_page_of_a_run_without_trials_opens(tmp_path: Path, browser: Page) -> None:
    pytest.importorskip("plotly")
    toy_run(tmp_path / "run", 0)
    (tmp_path / "run" / "space.toml").unlink()
    write_page(tmp_path / "run", tmp_path / "page.html")
    browser.errors.clear()
    browser.open(tmp_path / "page.html")
    assert browser.errors == []


@needs_browser
def test_what_goes_wrong_in_a_page_is_seen(tmp_path: Path, browser: Page) -> None:
    (tmp_path / "bad.html").write_text(
        "<script>document.documentElement.dataset.ready = 1; console.error('odd');"
        " nothing.at.all</script>"
    )
    browser.errors.clear()
    browser.open(tmp_path / "bad.html")
    assert len(browser.errors) == 2
    browser.errors.clear()


@pytest.mark.slow
@needs_browser
def test_two_thousand_trials_make_a_small_page_that_opens_at_once(
    tmp_path: Path, browser: Page
) -> None:
    pytest.importorskip("plotly")
    toy_run(tmp_path / "run", 2000, scored=False)
    write_page(tmp_path / "run", tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 5e6
    # The least of several: whatever else this machine does is not the page's.
    assert min(browser.open(tmp_path / "page.html") for _ in range(4)) < 2
    assert browser.errors == []
