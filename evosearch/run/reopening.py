"""The parts of a run that was begun: held, loaded again from its folder, found to be the same."""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import torch

from evosearch.engine.evaluator import MaskEvaluator
from evosearch.errors import InputError
from evosearch.files import writing
from evosearch.latency.meter import Meter
from evosearch.latency.model import LatencyModel
from evosearch.machine import changes_since, make_deterministic, take_gpu, torch_threads
from evosearch.objects import MODEL, is_given
from evosearch.run.config import RunConfig, read_run_config, require_unchanged
from evosearch.run.elastic import load_elastic
from evosearch.run.evaluating import criteria_of, make_evaluator
from evosearch.run.folder import RunFolder
from evosearch.run.lock import RunLock
from evosearch.run.log import RunLog, unexpected_logged
from evosearch.run.preparation import Prepared, make_meter, timed
from evosearch.run.recorded import recorded_identity
from evosearch.run.subject import AnyNetwork, Subject, load_network, load_subject
from evosearch.space.knowledge import Knowledge
from evosearch.stages import OnStage
from evosearch.study.identity import Identity, Part
from evosearch.study.networks import NamedNetwork
from evosearch.study.records import Header
from evosearch.study.scores import Score
from evosearch.study.study import Study
from evosearch.tasks.scoring import score

_logger = logging.getLogger(__name__)

TOLERANCE = 0.05
"""By how much the base network's scores may differ from the record, in standard errors of these.

On the machine and the number of threads that a run began with, they are the same bit for bit.
Another device rounds each image's loss otherwise, by some share of the losses' spread; images err
apart, so that the mean is off by about the same share of its standard error, however many there
are. This is a dozen roundoffs of bfloat16 (2**-8), and far above any of float32. What it lets
through is small beside the error that the scores have anyway."""
ROUNDOFF = 1e-5
"""By how much the loss may differ anyway, as a share of it: a hundred roundoffs of float32
(2**-23). Where every image has the same loss, its standard error is 0."""
TURNED = 2
"""Images whose answer may turn right or wrong by rounding, at least."""


def reopen(
    folder: Path, header: Header, on_stage: OnStage, *, identify_images: bool = True
) -> Prepared:
    """Loads again what the run in a folder works with, and checks that it is what it was.

    Args:
        folder: of the run.
        header: of its study.
        on_stage: told what is being done.
        identify_images: whether the images are compared one by one. A process that helps another
            one leaves it out: of the search split it has the base network's scores.

    Raises:
        InputError: the config is not valid, or something is not what the study is about.
        EvaluationError: the base network cannot be scored.
    """
    config = read_run_config(folder)
    if config.prune is not None:
        raise InputError(
            f"{folder}: a training under a budget, not a search: its last trial is its finished"
            " network; evosearch resume goes on with one that was stopped"
        )
    with torch_threads(config.search.threads):
        subject, latency = _reopen_subject(folder, header, config, on_stage, identify_images)
        on_stage("statistics of layer inputs")
        evaluator = make_evaluator(config.search, subject, config.space.finetune)
        on_stage("base network on the search split")
        now = evaluator.image_scores(header.base.mask, 0, evaluator.images).score
        _require_same_score(folder, header.base, now)
        if identify_images:  # else the process that is helped has said so
            _warn_of_changes(folder, config.search.threads)
        path = RunFolder(folder).knowledge
        try:
            knowledge = Knowledge.load(path)
        except InputError:  # it is derived: what is measured again is the same
            knowledge = evaluator.knowledge(criteria_of(config.search))
            with writing(path):
                knowledge.save(path)
    return Prepared(
        config=config,
        subject=subject,
        evaluator=evaluator,
        knowledge=knowledge,
        latency=latency,
    )


def reopen_training(folder: Path, header: Header, on_stage: OnStage) -> tuple[RunConfig, Subject]:
    """Loads again what the training under a budget in a folder began with, and checks that.

    Raises:
        InputError: as `reopen`.
        EvaluationError: the network cannot be scored.
    """
    config = read_run_config(folder)
    with torch_threads(config.search.threads):
        subject, _ = _reopen_subject(folder, header, config, on_stage, identify_images=True)
        model = subject.model.to(config.search.device)
        _require_same_score(
            folder, header.base, score(model, subject.data.search, task=subject.task)
        )
        _warn_of_changes(folder, config.search.threads)
    return config, subject


@contextmanager
def held(folder: Path) -> Iterator[RunLog]:
    """Keeps a run for this process, and its thread count, inside the block.

    Raises:
        InputError: the folder holds no run, or another process has it.
    """
    threads = read_run_config(folder).search.threads
    lock = RunLock(folder)
    try:
        log = RunLog(folder)
        with closing(log), unexpected_logged(folder), torch_threads(threads):
            yield log
    finally:
        lock.release()


def require_objects(folder: Path, config: RunConfig) -> None:
    """Checks that whoever opens a run has what it was made from.

    Raises:
        InputError: it was made from objects, and these were not given again.
    """
    if config.space.is_of_objects and not is_given(MODEL):
        raise InputError(
            f"{folder}: made from objects of a program, which a command has not; go on in Python:"
            f" run = evosearch.load_run({str(folder)!r}, model=..., train=..., test=...), and then"
            " evosearch.resume(run) or evosearch.finetune(run)"
        )


def reopen_meter(folder: Path, header: Header) -> Meter:
    """Loads again what times the networks of the run in a folder, without its data.

    Raises:
        InputError: as `reopen`, or the runtime is not there.
    """
    config = read_run_config(folder)
    places = RunFolder(folder)
    require_unchanged(places.config, config, header)
    require_objects(folder, config)
    found = load_network(config.space, Path(config.folder), places.base)
    network, _ = _as_begun(folder, header, found, header.identity.only(found.identity.parts))
    return make_meter(config.search, config.space, network)


def _reopen_subject(
    folder: Path, header: Header, config: RunConfig, on_stage: OnStage, identify_images: bool
) -> tuple[Subject, LatencyModel | None]:
    make_deterministic(config.search.device)
    places = RunFolder(folder)
    require_unchanged(places.config, config, header)
    require_objects(folder, config)
    subject = load_subject(
        config.space,
        Path(config.folder),
        weights=None if config.space.is_of_objects else places.base,
        identify_images=identify_images,
        on_stage=on_stage,
    )
    if Part.ELASTIC in header.identity.parts:
        subject = load_elastic(subject, places.elastic)
    begun, now = header.identity, subject.identity
    if not identify_images:
        begun = begun.only(now.parts)
    elif begun != now:
        begun = recorded_identity(folder, header)
    return _as_begun(folder, header, subject, begun)


def _as_begun(
    folder: Path, header: Header, found: AnyNetwork, begun: Identity
) -> tuple[AnyNetwork, LatencyModel | None]:
    """Returns what was found, once it is what the run began with, and its model of latency."""
    advice = "undo that, or start a new run"
    begun.require_same(found.identity, where=str(folder), advice=advice)
    latency = None
    if header.base_cost.latency:
        latency = LatencyModel.load(RunFolder(folder).latency)
        found = timed(found, latency)
    if found.discovery.space.digest != header.space_digest:
        raise InputError(
            f"{folder}: the search space is no longer the one that this run began with"
            " (model code, group rules or evosearch changed); start a new run"
        )
    return found, latency


def _require_same_score(folder: Path, base: NamedNetwork, now: Score) -> None:
    """Compares what the base network scores now with the record.

    It shows what no digest does: an operator of the user's own, code that the task finds by other
    ways than imports, or a device that computes something else.
    """
    was = base.search
    rounding = max(TOLERANCE * was.loss_se, ROUNDOFF * abs(was.loss))
    turned = max(TOLERANCE * was.accuracy_se, TURNED / was.images)
    if (
        now.images != was.images
        or abs(now.loss - was.loss) > rounding
        or abs(now.accuracy - was.accuracy) > turned
    ):
        raise InputError(
            f"{folder}: the base network no longer scores what it did (loss {was.loss:.9g} and"
            f" {was.metric} {was.accuracy:.2%} on {was.images} images; is {now.loss:.9g} and"
            f" {now.accuracy:.2%} on {now.images}): data, code that the model or task calls, or"
            " the device changed; undo that, or start a new run"
        )
    if now != was:
        _logger.warning(
            "%s: the base network's loss was %.9g, is %.9g: this device rounds otherwise, so that"
            " results can differ from those of one machine alone",
            folder,
            was.loss,
            now.loss,
        )


def _warn_of_changes(folder: Path, threads: int) -> None:
    changes = changes_since(RunFolder(folder).environment, threads)
    if changes:
        _logger.warning(
            "%s: results can differ from those of one machine alone: %s",
            folder,
            "; ".join(changes),
        )


@dataclass(frozen=True)
class RunEvaluator:
    """Gives a worker process the evaluator of a run, from the run's folder.

    No two sessions share one: the folder of a later session may hold another run.
    """

    folder: str
    session: str = field(default_factory=lambda: uuid4().hex)

    def __call__(self, worker: int = 0) -> MaskEvaluator:
        """Loads the run as a resumed search would, with its number of threads.

        Args:
            worker: the number of this process among those that measure on this machine.
        """
        folder = Path(self.folder)
        header = Study.open(folder).header
        take_gpu(read_run_config(folder).search.device, worker)
        prepared = reopen(folder, header, lambda _: None, identify_images=False)
        torch.set_num_threads(prepared.config.search.threads)
        return prepared.evaluator
