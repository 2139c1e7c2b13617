"""The folder of a new run: its files, written whole or not at all."""

import json
import os
import shutil
from pathlib import Path

from evosearch.aims import aim_of, begin_segment
from evosearch.errors import InputError
from evosearch.files import StorageError, write_json, write_text
from evosearch.latency.model import LatencyModel
from evosearch.machine import environment
from evosearch.models.weights import save_weights
from evosearch.run.config import RunConfig, run_config_digest, run_config_to_toml, settings_of
from evosearch.run.folder import RunFolder
from evosearch.run.subject import Subject
from evosearch.space.budget import Budget
from evosearch.space.cost import Cost
from evosearch.space.knowledge import Knowledge
from evosearch.space.text import space_to_toml
from evosearch.study.identity import Identity
from evosearch.study.networks import NamedNetwork
from evosearch.study.records import Header
from evosearch.study.scores import ImageScores
from evosearch.study.scorestore import ScoreStore
from evosearch.study.study import Study


def new_header(
    config: RunConfig,
    subject: Subject,
    *,
    budget: Budget,
    base_cost: Cost,
    strategy: str,
    references: tuple[NamedNetwork, ...],
) -> Header:
    """Returns what the study of a new run is about.

    Args:
        config: of the run.
        subject: base network, data and space.
        budget: what is feasible.
        base_cost: of the base network, with its latency where that is known.
        strategy: who proposes masks.
        references: the base network first.
    """
    space = subject.discovery.space
    return Header(
        space_digest=space.digest,
        config_digest=run_config_digest(config),
        sizes=space.sizes,
        least_widths=dict(zip(space.sizes, space.least_widths.tolist(), strict=True)),
        budget=budget,
        base_cost=base_cost,
        strategy=strategy,
        seed=config.search.seed,
        identity=Identity(parts=subject.identity.parts),
        references=references,
        config=settings_of(config),
    )


def write_run(
    folder: Path,
    config: RunConfig,
    subject: Subject,
    header: Header,
    base_scores: ImageScores,
    knowledge: Knowledge,
    latency: LatencyModel | None = None,
) -> None:
    """Writes the folder of a new run, which appears whole or not at all.

    Args:
        folder: must not exist, but for the log of a preparation that failed.
        config: of the run.
        subject: base network, data and space.
        header: of its study.
        base_scores: of the base network on the search split.
        knowledge: what strategies read.
        latency: the model of it, where the budget has one.

    Raises:
        InputError: it cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    places = RunFolder(partial)
    space = subject.discovery.space
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_text(places.config, run_config_to_toml(config))
        write_text(places.space, space_to_toml(space))
        proofs = {
            proof.group: {"error": proof.error, "effect": proof.effect}
            for proof in subject.discovery.proofs
        }
        write_json(places.proof, proofs)
        knowledge.save(places.knowledge)
        if latency is not None:
            latency.save(places.latency)
        ScoreStore(places.scores).put(header.base.mask, base_scores)
        save_weights(subject.model, places.base)
        if subject.elastic is not None:
            save_weights(subject.elastic, places.elastic)
        write_text(places.images, json.dumps(subject.identity.images_to_json()))
        write_json(places.environment, environment(config.search.threads))
        study = Study.create(partial, header)
        smallest = space.smallest_cost
        first = aim_of(header.budget).next(study, header.budget, smallest, ())
        if config.prune is None and first != header.budget:  # a training has a pace instead
            begin_segment(study, header.budget, smallest)
        if folder.exists():  # with the log of a preparation that failed
            RunFolder(folder).log.replace(places.log)
            folder.rmdir()
        partial.rename(folder)
    except (OSError, StorageError) as error:
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or cause
        raise InputError(f"{folder}: cannot be written ({reason})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
