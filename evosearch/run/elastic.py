"""The elastic weights of a run: trained once before its search, cached by contents."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from torch import nn

from evosearch.errors import InputError
from evosearch.files import cache_folder, writing
from evosearch.models.copying import copied
from evosearch.models.precision import resolve_precision
from evosearch.models.weights import load_weights, save_weights, weights_digest
from evosearch.run.callbacks import Callbacks
from evosearch.run.config import SearchConfig
from evosearch.run.subject import Subject
from evosearch.seeding import Stream, generator
from evosearch.space.budget import Budget, BudgetRequest
from evosearch.space.knowledge import Knowledge
from evosearch.space.mask import Mask
from evosearch.space.resources import RESOURCES
from evosearch.space.space import SearchSpace
from evosearch.stages import Countdown
from evosearch.strategies.palette import drawn_palette
from evosearch.strategies.two_step import TwoStep
from evosearch.study.identity import VERSIONS, Identity, Part
from evosearch.training.checkpoint import Checkpoint
from evosearch.training.elastic import ElasticConfig, train_elastic
from evosearch.training.optimizers import resolve_optimizer

MADE = "changes of compensated networks, judged on search images"
"""How candidates of elastic weights are made and chosen, in a run's identity: to be changed with
that."""
_ELASTIC = '[search.evaluator] build = "elastic" trains the weights for a range of sizes'


def require_sizes(request: BudgetRequest, space: SearchSpace) -> None:
    """Refuses a budget that says not for which sizes elastic weights are to be trained.

    One size in FLOPs or params is a range, too: all plans then have it.

    Raises:
        InputError: only measured quantities are limited, or accuracy is without a smallest size.
    """
    exact = request.exact()
    if not exact.amounts:
        given = "an accuracy drop" if request.accuracy_drop is not None else "a latency"
        raise InputError(
            f"{_ELASTIC}, and {given} names none: give FLOPs or params as well, such as"
            " --flops 10%..50%"
        )
    sizes = replace(exact, accuracy_drop=None).resolve(space.base_cost)
    if request.accuracy_drop is not None and not sizes.is_range:
        raise InputError(
            f"{_ELASTIC}, and an accuracy drop may end at any: say where they begin, such as"
            " --flops 10%..100%"
        )


def sizes_of(budget: Budget) -> Budget:
    """Returns the exact part of a budget: the sizes that elastic weights are trained for."""
    exact = {name: bound for name, bound in budget.bounds.items() if RESOURCES[name].exact}
    return Budget(bounds=exact)


def with_elastic(
    subject: Subject,
    config: ElasticConfig,
    search: SearchConfig,
    budget: Budget,
    knowledge: Knowledge,
    start: Callable[[Mask], nn.Module],
    callbacks: Callbacks,
) -> Subject:
    """Returns a subject with elastic weights for a budget: cached, or trained here.

    A training that was killed goes on from its last epoch when the same is asked for again, and
    ends as it would have, unless memory let plans begin with other numbers of calibration images.

    Args:
        subject: base network, on the run's device; data and space.
        config: the `[elastic]` section.
        search: seed, threads, device, and how plans are compensated.
        budget: of the run; its exact resources say for which sizes.
        knowledge: has the Gram matrices, whose removal order the plans' channels follow.
        start: a plan -> its compensated network.
        callbacks: told what the training costs, and how far it is.

    Raises:
        InputError: the outputs do not fit the loss of the section.
        EvaluationError: a loss is no longer finite.
        StorageError: the cache cannot be written.
    """
    palette = palette_of(subject.discovery.space, config, search.seed, budget, knowledge)
    path = cached_elastic(subject, config, search, palette)
    if path.exists():
        return _with_weights(subject, _loaded(subject.model, path))
    epochs = cost_in_epochs(subject.discovery.space, palette, config)
    callbacks.on_note(
        f"elastic weights: {len(palette)} plans in {config.epochs} epochs, which cost as much as"
        f" {epochs:.3g} epochs of the whole network"
    )
    countdown: Countdown | None = None
    begun = 0

    def on_epoch(done: int) -> None:
        nonlocal countdown, begun
        if countdown is None:
            begun = done
            left = config.epochs - begun
            countdown = Countdown(callbacks.on_stage, "elastic weights", left, "epochs")
        else:
            countdown.done(done - begun)

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    callbacks.on_stage("compensating the plans that elastic weights begin with")
    progress = path.with_suffix(".checkpoint")
    network = train_elastic(
        subject.model,
        subject.discovery.space.groups,
        palette,
        subject.data.train,
        config,
        search.seed,
        start=start,
        task=subject.task,
        progress=Checkpoint(progress, path.stem),
        on_epoch=on_epoch,
    )
    with writing(path):
        save_weights(network, path)
        progress.unlink(missing_ok=True)
    return _with_weights(subject, network)


def palette_of(
    space: SearchSpace, config: ElasticConfig, seed: int, budget: Budget, knowledge: Knowledge
) -> tuple[Mask, ...]:
    """Returns the plans that elastic weights are trained for, the one of every step first.

    Args:
        space: what is searched.
        config: the `[elastic]` section.
        seed: of the run.
        budget: of the run; its exact resources say for which sizes.
        knowledge: has the Gram matrices, whose removal order the plans' channels follow.
    """
    return drawn_palette(
        space,
        sizes_of(budget),
        TwoStep(space, knowledge.gram),
        drawn=config.palette,
        spread=config.spread,
        rng=generator(seed, Stream.ELASTIC, "palette"),
    )


def cost_in_epochs(space: SearchSpace, palette: Sequence[Mask], config: ElasticConfig) -> float:
    """Returns how many epochs of the whole network an elastic training costs, as expected.

    A step is forward and backward, three times the MACs, through the first plan and the others
    that are drawn, and forward through the base network.
    """
    first, *drawn = (space.cost(mask).macs / space.base_cost.macs for mask in palette)
    others = min(config.plans - 1, len(drawn))
    passed = 3 * (first + others * (fmean(drawn) if drawn else 0.0)) + 1
    return config.epochs * passed / 3


def load_elastic(subject: Subject, path: Path) -> Subject:
    """Returns a subject with the elastic weights of a run that was begun.

    Args:
        subject: of the run.
        path: of the weights.

    Raises:
        InputError: the file is missing or damaged.
    """
    return _with_weights(subject, _loaded(subject.model, path))


def cached_elastic(
    subject: Subject, config: ElasticConfig, search: SearchConfig, palette: Sequence[Mask]
) -> Path:
    """Returns where elastic weights are kept: by all that they follow from."""
    meant = {  # by "auto"
        "optimizer": resolve_optimizer(config.optimizer, search.device),
        "precision": resolve_precision(config.precision, search.device),
    }
    settings = {
        "space": subject.discovery.space.digest,
        "elastic": config.model_dump(mode="json", exclude_none=True) | meant,
        "palette": [mask.key for mask in palette],
        "made": MADE,
        "evaluator": search.evaluator.model_dump(include={"calibration_batch", "rescale"}),
        **search.model_dump(mode="json", include={"seed", "threads", "device"}),
    }
    images = (Part.TRAIN, Part.CALIBRATION, Part.PREPARATION)
    parts = (Part.GRAPH, Part.WEIGHTS, *images, Part.TASK, *VERSIONS)
    key = subject.identity.key(*parts, settings=settings)
    return cache_folder() / "elastic" / f"{key}.safetensors"


def _loaded(base: nn.Module, path: Path) -> nn.Module:
    network = copied(base)
    load_weights(network, path)
    return network.eval()


def _with_weights(subject: Subject, network: nn.Module) -> Subject:
    known = subject.identity
    parts = {**known.parts, Part.ELASTIC: f"{weights_digest(network)}, {MADE}"}
    return replace(
        subject,
        elastic=network,
        identity=Identity(parts=parts, images=known.images),
    )
