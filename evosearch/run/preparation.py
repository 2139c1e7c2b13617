"""The preparation of a search: its config, and what is measured before the first trial."""

from dataclasses import dataclass, replace
from pathlib import Path

from evosearch.criteria import require_for_search
from evosearch.engine.evaluator import MaskEvaluator
from evosearch.errors import InputError
from evosearch.latency.meter import Meter
from evosearch.latency.model import LatencyModel
from evosearch.latency.profile import profile
from evosearch.latency.runtimes import require_runtime
from evosearch.machine import resolve_device, torch_threads
from evosearch.run.baselook import fitted, look_at_base
from evosearch.run.callbacks import Callbacks
from evosearch.run.config import (
    RunConfig,
    SearchConfig,
)
from evosearch.run.creation import new_header, write_run
from evosearch.run.elastic import require_sizes, with_elastic
from evosearch.run.evaluating import criteria_of, make_evaluator
from evosearch.run.folder import RunFolder
from evosearch.run.references import measure_references
from evosearch.run.spacefile import SpaceFile
from evosearch.run.subject import AnyNetwork, ProvenNetwork, Subject, load_subject
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.knowledge import Knowledge
from evosearch.space.space import SearchSpace
from evosearch.strategies import strategy_class
from evosearch.tasks.config import load_task
from evosearch.training.elastic import ElasticConfig


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a run works with, beside its folder.

    Attributes:
        config: what was asked for.
        subject: base network, data and proven space.
        evaluator: measures masks.
        knowledge: what the strategies read.
        latency: the model of it, where the budget has one.
    """

    config: RunConfig
    subject: Subject
    evaluator: MaskEvaluator
    knowledge: Knowledge
    latency: LatencyModel | None = None

    def require_device(self) -> None:
        """Checks that the latency model is of this device and these versions.

        Raises:
            InputError: it is not; names both.
        """
        if self.latency is not None:
            meter = make_meter(self.config.search, self.config.space, self.subject)
            self.latency.conditions.require(meter.bench.conditions)


def make_meter(search: SearchConfig, space_file: SpaceFile, subject: ProvenNetwork) -> Meter:
    """Returns what times the networks that are cut from one."""
    return Meter(
        model=subject.model.to(search.device),
        section=space_file.model,
        discovery=subject.discovery,
        identity=subject.identity,
        config=search.latency,
        device=search.device,
    )


def timed(subject: AnyNetwork, model: LatencyModel) -> AnyNetwork:
    """Returns a subject, or a network alone, whose space knows its latency."""
    space = model.timed(subject.discovery.space)
    return replace(subject, discovery=replace(subject.discovery, space=space))


def prepare(
    folder: Path,
    *,
    space_file: SpaceFile,
    space_folder: Path,
    search: SearchConfig,
    request: BudgetRequest,
    anyway: bool,
    callbacks: Callbacks,
) -> Prepared:
    """Proves the space, measures what the strategy needs, and writes the folder of a run.

    The run appears whole, or not at all.

    Args:
        folder: of the run; must not exist, but for the log of a preparation that failed.
        space_file: what is searched.
        space_folder: where the space file lies.
        search: how to search.
        request: the budget.
        anyway: whether to go on with a base network that is not what it should be.
        callbacks: told what is being done, how base training goes where the base must be trained
            first, what the base network is worth, and what it does not work in.

    Raises:
        InputError: the folder exists, or something that the user gave is at fault.
    """
    if not RunFolder(folder).is_free:
        raise InputError(f"{folder}: exists already; resume it, or name another with --out")
    strategy_class(search.strategy)  # these refuse names that do not exist
    for name in search.criteria:
        require_for_search(name)
    if request.needs_model:
        space_file.require_names("--latency")
    measure = load_task(space_file.task, space_folder).measure
    require_drop_of_mean(request, measure.name, pooled=measure.pooled is not None)
    search = search.model_copy(update={"device": resolve_device(search.device)})
    require_runtime(search.latency.runtime, search.device)
    on_stage = callbacks.on_stage
    elastic = None
    if search.evaluator.build == "elastic":
        elastic = space_file.elastic or ElasticConfig()

    def check(space: SearchSpace) -> None:
        require_possible(request, space)
        if elastic is not None:
            require_sizes(request, space)

    with torch_threads(search.threads):
        subject = load_subject(
            space_file.model_copy(update={"elastic": elastic}),
            space_folder,
            on_stage=on_stage,
            on_epoch=callbacks.on_epoch,
            on_space=check,
        )
        on_stage("base network on the search split")
        search, fallback = fitted(search, subject)
        evaluator = make_evaluator(search, subject, space_file.finetune)
        base_scores, base = look_at_base(
            evaluator, subject, space_file, anyway=anyway, on_note=callbacks.on_note
        )
        if fallback is not None:
            callbacks.on_note(fallback)
        base_cost, latency = subject.discovery.space.base_cost, None
        if request.needs_model:
            latency = profile(make_meter(search, space_file, subject), on_stage)
            subject = timed(subject, latency)
            base_cost = replace(base_cost, latency=latency.base_picoseconds)
            asked = request.resolve(base_cost, base.score.accuracy)
            _require_certifiable(asked, latency, subject.discovery.space)
        space = subject.discovery.space
        on_stage("statistics of layer inputs")
        knowledge = evaluator.knowledge(criteria_of(search))
        budget = request.resolve(base_cost, base.score.accuracy)
        if elastic is not None:
            subject = with_elastic(
                subject, elastic, search, budget, knowledge, evaluator.builder.final, callbacks
            )
            evaluator = make_evaluator(search, subject, space_file.finetune)
        references = measure_references(
            evaluator, space, budget, base, knowledge, search.criterion, on_stage
        )
    config = RunConfig(
        folder=str(space_folder.resolve()),
        budget=budget.to_json(),
        search=search,
        # The run's own file has what was traced; a search does not prune while it trains.
        space=space_file.model_copy(update={"traced": None, "prune": None, "elastic": elastic}),
    )
    prepared = Prepared(
        config=config,
        subject=subject,
        evaluator=evaluator,
        knowledge=knowledge,
        latency=latency,
    )
    header = new_header(
        config,
        subject,
        budget=budget,
        base_cost=base_cost,
        strategy=search.strategy,
        references=references,
    )
    write_run(folder, config, subject, header, base_scores, knowledge, latency)
    return prepared


def require_possible(request: BudgetRequest, space: SearchSpace) -> None:
    """Refuses a budget that no network meets; what must be measured first is not known yet."""
    known = request.exact()
    if not known.is_empty:
        space.require_reachable(known.resolve(space.base_cost, base_accuracy=1.0))


def require_drop_of_mean(request: BudgetRequest, metric: str, *, pooled: bool) -> None:
    """Refuses an accuracy drop in a metric whose drop no exact bound is known of."""
    if request.accuracy_drop is not None and pooled:
        raise InputError(
            f"--accuracy-drop is certified for a metric that is one number per image, and {metric}"
            " is pooled over images; limit something else, such as --flops 50%"
        )


def _require_certifiable(budget: Budget, latency: LatencyModel, space: SearchSpace) -> None:
    """Refuses a latency that no network meets, or that is too fine to be told by measuring."""
    latency.require_finer(budget)
    space.require_reachable(budget)
