"""evosearch from Python: light to import, and the same runs as the command line's."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import evosearch
from evosearch.engine.loop import Outcome
from evosearch.errors import InputError
from evosearch.run.folder import RunFolder, _Place
from evosearch.study.trial import TrialState
from tests.report.toyrun import toy_run
from tests.test_cli import QUICK


@pytest.mark.parametrize("used", ["evosearch", "evosearch.load_run", "evosearch.search"])
def test_import_and_reading_need_no_torch(used: str) -> None:
    code = f"import sys, evosearch; {used}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = evosearch.serach  # type: ignore[attr-defined]


def test_a_run_is_read_as_rows(tmp_path: Path) -> None:
    study = toy_run(tmp_path / "run", 16)
    run = evosearch.load_run(str(tmp_path / "run"))
    rows = run.rows()
    assert [row["trial"] for row in rows] == list(range(16))
    assert len({tuple(row) for row in rows}) == 1  # one set of columns
    assert all(not isinstance(value, dict | list) for row in rows for value in row.values())
    for row, trial in zip(rows, study.trials, strict=True):
        assert row["width inner"] == trial.mask.widths["inner"]
        assert row["state"] == trial.state.value
        if trial.state is TrialState.COMPLETE and trial.evaluation is not None:
            assert row["loss"] == trial.evaluation.score.loss
        else:
            assert row["loss"] is None
    assert {r["trial"] for r in rows if r["in_front"]} == {t.number for t in run.front.members}
    assert run.pick().trial == run.front.knee.number
    assert run.pick(3).trial == 3
    assert run.pick("smallest").cost.macs == min(t.cost.macs for t in run.front.members)
    assert run.baselines == {}
    with pytest.raises(InputError, match="not a run"):
        evosearch.load_run(tmp_path)
    with pytest.raises(InputError, match="not an artifact"):
        evosearch.load_artifact(tmp_path / "run")


def test_optuna_opens_a_run_as_it_is(tmp_path: Path) -> None:
    study = toy_run(tmp_path / "run", 16)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "run" / "study.log")))
    opened = optuna.load_study(study_name=None, storage=storage)
    assert opened.metric_names == ["loss", "macs"]
    for frozen, trial in zip(opened.trials, study.trials, strict=True):
        assert frozen.params == trial.mask.widths
        assert frozen.state.name == trial.state.name
        if trial.evaluation is not None:
            assert frozen.values == [trial.evaluation.score.loss, trial.cost.macs]
        bound = study.budget.bounds["macs"]
        assert bound is not None
        assert frozen.constraints["macs"] == (trial.cost.macs - bound.high) / bound.high
    best = {(t.values[0], t.values[1]) for t in opened.best_trials}
    members = study.front().members
    assert best == {(t.evaluation.score.loss, t.cost.macs) for t in members if t.evaluation}


def test_a_search_is_started_resumed_and_distilled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("quick.toml").write_text(QUICK)
    seen = []
    run = evosearch.search(
        "quick.toml",
        flops="30%..70%",
        trials=6,
        criterion="l2",
        baselines=True,
        callbacks=evosearch.Callbacks(on_trial=lambda trial: seen.append(trial.number)),
    )
    assert run.folder == Path("runs/quick-1")
    assert seen == list(range(6))
    assert 'criterion = "l2"' in (run.folder / "config.toml").read_text()
    assert set(run.baselines) == {"random", "uniform", "global"}
    longer = evosearch.resume(run.folder, trials=8, params="60%")
    assert len(longer.study.trials) == 8
    assert [segment.first for segment in longer.study.segments] == [0, 6]
    assert longer.ended is not None
    assert longer.ended.outcome is Outcome.TRIALS

    stopped = evosearch.resume(
        run.folder, trials=20, callbacks=evosearch.Callbacks(should_stop=lambda: True)
    )
    assert stopped.ended is not None
    assert stopped.ended.outcome is Outcome.STOPPED
    assert len(stopped.study.trials) == 8

    plan = evosearch.load_run(run.folder).pick(at="flops=55%", evaluate=True)
    assert plan.evaluation is not None
    view = evosearch.pareto(run.folder, at="flops=55%")
    assert view.to_json()["measured"] is True
    assert len(evosearch.pareto(run.folder, x="params").to_json()["front"]) >= 1
    done = evosearch.finetune(longer.folder, pick="smallest")
    artifact = evosearch.load_artifact(done.artifact.folder)
    assert repr(artifact) == f"Artifact({done.artifact.folder}: {artifact.card['plan']})"
    assert repr(done).startswith(f"Finetuned(NamedNetwork({done.networks[-1].name}: ")
    best = done.distillation.best_epoch
    assert f", Distillation(best epoch {best} of " in repr(done)
    assert repr(done).endswith(f"), {artifact})")
    assert artifact.card["plan"] == f"trial {longer.front.smallest().number}"
    copy = evosearch.export_artifact(done.artifact.folder, to="copy")
    assert evosearch.load_artifact(copy.path).plan == artifact.plan

    places = {value._name for value in vars(RunFolder).values() if isinstance(value, _Place)}
    assert {path.name for path in run.folder.iterdir()} <= places | {"study.log.lock"}

    found = evosearch.inspect("quick.toml")
    assert "Channel groups, each proven on this model" in repr(found)
    assert found._repr_html_().count("<table>") == 2
    assert repr(found.discovery).startswith(f"Discovery({found.discovery.space}, ")
    assert found.discovery.space.digest == run.study.header.space_digest
    trained = evosearch.train("quick.toml")
    assert trained.score.images == 300
    assert trained.weights.read_bytes() == RunFolder(run.folder).base.read_bytes()
    with pytest.raises(InputError, match="needs a budget"):
        evosearch.search("quick.toml")
