"""Chooses channels, builds the networks that they give, fine-tunes and measures them."""

import json
import time
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import final

from torch import nn

from evosearch.config import validated
from evosearch.engine.config import EvaluatorConfig
from evosearch.engine.evaluator import MaskEvaluator
from evosearch.engine.loop import Limits
from evosearch.errors import InputError
from evosearch.files import write_json
from evosearch.run.config import SearchConfig
from evosearch.run.session import Session
from evosearch.run.spacefile import SpaceFile, load_space_file
from evosearch.run.subject import discover_space, load_subject
from evosearch.space.budget import BudgetRequest
from evosearch.space.mask import Mask
from evosearch.surgery.compaction import compact
from evosearch.surgery.discovery import Discovery
from evosearch.tasks.scoring import score
from evosearch.tasks.testing import TestReport
from evosearch.training.distillation import distil
from quality.methods import BASE, METHODS, OURS, RIVALS, TUNED
from quality.results import Row
from quality.rivals import TorchPruning

EPOCHS = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The channels that a method keeps.

    Attributes:
        mask: of the space that the method may cut.
        seconds: that choosing took; None for a search that was killed in between.
        evaluations: networks that were scored on the whole search split for it.
    """

    mask: Mask
    seconds: float | None = 0.0
    evaluations: int = 0


@final
class Bench:
    """One base network, and a folder where everything that takes time is kept and found again.

    `runs/` has the searches, `plans/` what each method keeps, `progress/` fine-tunings that are
    under way, `test/` a ledger for every network that was measured on the test split.
    """

    def __init__(self, network: str, space: Path, folder: Path, trials: int, threads: int) -> None:
        """Loads the base network and the data.

        Args:
            network: its name in rows.
            space: the space file.
            folder: of everything that is kept.
            trials: of each search.
            threads: of each search.
        """
        self._network, self._place = network, space.parent
        self._folder = folder / network
        self._trials, self._threads = trials, threads
        self._file = load_space_file(space)
        self._subject = load_subject(self._file, self._place)
        # Each holds what every layer gives on hundreds of images.
        self._evaluator = lru_cache(maxsize=2)(self._new_evaluator)
        for name in ("runs", "plans", "progress", "test"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        self._require_same_space(space)

    def _require_same_space(self, space: Path) -> None:
        """Refuses a folder whose plans are of another space file."""
        kept, text = self._folder / "space.toml", space.read_text(encoding="utf-8")
        if not kept.exists():
            kept.write_text(text, encoding="utf-8")
        elif kept.read_text(encoding="utf-8") != text:
            raise InputError(f"{self._folder}: is of another space file than {space}")

    def trials(self, method: str) -> int:
        """Returns how many trials a method takes."""
        return self._trials if METHODS[method].searches else 0

    def measure(self, method: str, ratio: float, seed: int, stage: str, known: list[Row]) -> Row:
        """Returns a row.

        Two torch-pruning methods may keep the same channels, and differ in nothing then: the row
        of the one is that of the other.

        Args:
            method: who chooses the channels.
            ratio: of MACs.
            seed: of everything that is drawn.
            stage: what is done to the network before it is measured.
            known: rows measured so far.
        """
        chooses = seed if METHODS[method].draws else 0
        plan = self._plan(method, ratio, chooses)
        space = self._discovery(method).space
        shares = space.cost(plan.mask).relative_to(space.base_cost)
        for row in known if method in RIVALS else ():
            same = (self._network, seed, stage, plan.mask.key)
            if row.method in RIVALS and (row.network, row.seed, row.stage, row.mask) == same:
                return replace(row, method=method, ratio=ratio, seconds=plan.seconds)
        name = f"{self._name(method, ratio, seed)}-{stage}"
        began = time.perf_counter()
        network = self._built(method, plan.mask, 0 if method in RIVALS else chooses, stage)
        if stage in TUNED:
            self._finetune(network, seed, stage, self._folder / "progress" / name)
        seconds = time.perf_counter() - began
        ledger = self._folder / "test" / f"{name}.json"
        report = TestReport(ledger, self._file.data, self._place)
        return Row(
            network=self._network,
            method=method,
            trials=self.trials(method),
            ratio=ratio,
            seed=seed,
            stage=stage,
            mask=plan.mask.key,
            macs=shares["macs"],
            params=shares["params"],
            search=100 * score(network, self._subject.data.search).accuracy,
            test=100 * report.measure(name, network).score.accuracy,
            seconds=plan.seconds,
            evaluations=plan.evaluations,
            stage_seconds=seconds,
        )

    def _name(self, method: str, ratio: float, seed: int) -> str:
        trials = f"-{self._trials}-trials" if METHODS[method].searches else ""
        return f"{method}{trials}-{ratio:g}-seed-{seed}"

    def _plan(self, method: str, ratio: float, seed: int) -> Plan:
        """Returns what a method keeps: chosen once, then read from disk."""
        path = self._folder / "plans" / f"{self._name(method, ratio, seed)}.json"
        if path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            mask = Mask.from_json(stored["mask"], self._discovery(method).space.sizes)
            return Plan(mask=mask, seconds=stored["seconds"], evaluations=stored["evaluations"])
        if method == BASE:
            plan = Plan(mask=self._discovery(method).space.full_mask())
        elif method in OURS:
            plan = self._search(method, ratio, seed)
        else:
            _, criterion, scope = method.split("-")
            macs = int(ratio * self._subject.discovery.space.base_cost.macs)
            mask, seconds = self._torch_pruning.mask(criterion, scope, macs, seed)
            plan = Plan(mask=mask, seconds=seconds)
        entry = {"mask": plan.mask.to_json(), "seconds": plan.seconds}
        write_json(path, {**entry, "evaluations": plan.evaluations})
        return plan

    def _search(self, method: str, ratio: float, seed: int) -> Plan:
        """Searches, or goes on with a search that was killed, and returns the best trial."""
        folder = self._folder / "runs" / self._name(method, ratio, seed)
        trials = self.trials(method) or 1
        killed = folder.exists()
        began = time.perf_counter()
        if killed:
            run = Session.resume(folder)
        else:
            settings = {"strategy": METHODS[method].strategy, "seed": seed}
            run = Session.create(
                folder,
                space_file=self._inner_file if METHODS[method].inner else self._file,
                space_folder=self._place,
                search=validated(
                    SearchConfig,
                    {**self._file.search, **settings, "trials": trials, "threads": self._threads},
                    "[search]",
                ),
                request=BudgetRequest.of(flops=f"{100 * ratio:g}%"),
            )
        try:
            run.search(Limits(trials=trials))
            return Plan(
                mask=run.study.front().best().mask,
                seconds=None if killed else time.perf_counter() - began,
                evaluations=run.full_evaluations,
            )
        finally:
            run.close()

    def _built(self, method: str, mask: Mask, seed: int, stage: str) -> nn.Module:
        """Returns the network that a stage measures, or that a fine-tuning starts from."""
        inner = METHODS[method].inner
        if stage == "raw":
            groups = self._discovery(method).space.groups
            return compact(self._subject.model, groups, mask).eval()
        if stage == "recalibrated" or method in RIVALS:
            return self._evaluator(inner, seed).builder.plain(mask)
        return self._evaluator(inner, seed).builder.final(mask)

    def _finetune(self, network: nn.Module, seed: int, stage: str, progress: Path) -> None:
        """Fine-tunes a network in place: on labels alone, or on the base network's outputs too."""
        config = self._file.finetune.model_copy(update={"epochs": EPOCHS})
        if stage == "labels":
            config = config.model_copy(update={"alpha": 0.0})
        data = self._subject.data
        distil(
            self._subject.model, network, data.train, data.search, config, seed, progress=progress
        )
        progress.unlink(missing_ok=True)

    def _discovery(self, method: str) -> Discovery:
        return self._inner if METHODS[method].inner else self._subject.discovery

    @cached_property
    def _inner_file(self) -> SpaceFile:
        """The space file, with the channels that several layers write left as they are."""
        discovery = self._subject.discovery
        writes = {(layer.weight, layer.writes) for layer in discovery.layers}
        shared = [
            group.name
            for group in discovery.space.groups
            if sum((member.tensor, member.dim) in writes for member in group.members) > 1
        ]
        rules = self._file.groups
        rules = rules.model_copy(update={"exclude": (*rules.exclude, *shared)})
        return self._file.model_copy(update={"groups": rules})

    @cached_property
    def _inner(self) -> Discovery:
        return discover_space(self._inner_file, self._subject.model)

    @cached_property
    def _torch_pruning(self) -> TorchPruning:
        return TorchPruning(self._subject, self._inner.space)

    def _new_evaluator(self, inner: bool, seed: int) -> MaskEvaluator:
        data = self._subject.data
        return MaskEvaluator(
            model=self._subject.model,
            discovery=self._inner if inner else self._subject.discovery,
            calibration=data.calibration,
            search=data.search,
            config=EvaluatorConfig(),
            seed=seed,
        )
