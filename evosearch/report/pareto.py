"""The view of a run that `evosearch pareto` shows, read at one moment; without torch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from rich.console import Group, RenderableType

from evosearch.errors import InputError
from evosearch.report.artifacts import FoundArtifact, artifacts_of
from evosearch.report.finals import finals_json, finals_lines
from evosearch.report.front import FrontNotes, front_json, front_table
from evosearch.report.searches import Searched, searches_of, searches_table
from evosearch.report.ties import above_base, tied_members
from evosearch.report.trust import costlier_json, trust_advice, trust_json, trust_table
from evosearch.report.views import View
from evosearch.run.baselines import baseline_studies
from evosearch.run.folder import RunFolder
from evosearch.space.resources import Resource
from evosearch.space.space import SearchSpace
from evosearch.space.text import load_space
from evosearch.study.certificate import Certificate, certificate_of
from evosearch.study.finals import Finals, load_finals
from evosearch.study.front import ParetoFront
from evosearch.study.rungtimes import RungTimes
from evosearch.study.study import Study
from evosearch.study.trial import TrialState


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class ParetoView(View):
    """A run as it was when it was read; see `View`.

    Attributes:
        folder: of the run.
        study: its study.
        front: its front, in the size that was asked for.
        rivals: studies of the baselines that were searched beside, by name.
        notes: what is known of the members of the front beyond their trials.
        artifacts: plan -> its finished network.
        certificate: what was certified of the budget; None where nothing was.
        finals: that the run has finished.
        rungs: what candidates take on rungs that the search may have left out, where measured.
        space: what is searched; None where the run holds none that can be read.
    """

    folder: Path
    study: Study
    front: ParetoFront
    rivals: Mapping[str, Study]
    notes: FrontNotes
    artifacts: Mapping[str, FoundArtifact]
    certificate: Certificate | None
    finals: tuple[Finals, ...]
    rungs: RungTimes | None
    space: SearchSpace | None

    @classmethod
    def read(cls, folder: Path, size: Resource | None = None) -> "ParetoView":
        """Reads a run.

        Raises:
            InputError: the folder holds none.
        """
        study = Study.open(folder)
        front = study.front(size)
        artifacts = artifacts_of(folder)
        budgeted = study.budget.least_accuracy is not None
        notes = FrontNotes(
            tied=tied_members(folder, front.members),
            above_base=above_base(folder, study, front.members) if budgeted else {},
            distilled={plan: artifact.network for plan, artifact in artifacts.items()},
        )
        try:
            space = load_space(RunFolder(folder).space)
        except InputError:
            space = None
        return cls(
            folder=folder,
            study=study,
            front=front,
            rivals=baseline_studies(folder),
            notes=notes,
            artifacts=artifacts,
            certificate=certificate_of(folder, study.requested),
            finals=load_finals(RunFolder(folder).finals, study.header.sizes),
            rungs=RungTimes.load(folder),
            space=space,
        )

    @property
    def searches(self) -> tuple[Searched, ...]:
        """The search of the run, and then its baselines."""
        return searches_of(self.study, self.front, self.rivals)

    def to_json(self) -> dict[str, Any]:
        """Returns what there is to know, as JSON: what `pareto --json` prints."""
        return {
            **front_json(self.searches, self.notes),
            "certificate": certificate_json(self.certificate),
            "finals": [finals_json(finals) for finals in self.finals],
            "ladder": trust_json(self.study),
            "ladder_left_out": costlier_json(self.rungs),
            "proof": None if self.space is None else proof_json(self.space),
        }

    def render(self) -> RenderableType:
        """Returns the same for people."""
        parts: list[RenderableType] = [front_table(self.searches[0], self.notes)]
        if self.rivals:
            parts.append(searches_table(self.searches))
            parts.append(
                "baselines may take as many full evaluations as the search and its sensitivity"
                " probes took together"
            )
        parts += [trust_table(self.study), *trust_advice(self.study, self.rungs)]
        if self.space is not None:
            parts.append(_proof_line(self.space))
        if len(self.study.header.references) > 1:
            parts.append(_references_line(self.study))
        if any(self.notes.tied.values()):
            parts.append(
                "tied: the 95 % interval of the loss difference, image by image, contains 0; of"
                " the trials that one is tied with, the smallest is named"
            )
        if self.certificate is not None:
            parts.append(str(self.certificate))
        parts += [line for finals in self.finals for line in finals_lines(finals)]
        return Group(*parts, self._summary())

    def _summary(self) -> str:
        states = Counter(trial.state for trial in self.study.trials)
        again = f", {self.study.repeated} repeated" if self.study.repeated else ""
        stopped, failed = states[TrialState.PRUNED], states[TrialState.FAIL]
        counts = (
            f"{len(self.study.trials)} trials, {stopped} stopped below the last rung, {failed}"
            f" failed{again}, {len(self.front.members)} in the front"
        )
        return (
            f"{counts}; scores are of the search split, which was selected on, so they are"
            " optimistic"
        )


def certificate_json(certificate: Certificate | None) -> dict[str, Any] | None:
    """Returns which trial a certificate is about, whether it keeps the budget, and why."""
    if certificate is None:
        return None
    return {
        "trial": certificate.trial,
        "certified": certificate.certified,
        "text": str(certificate),
    }


def proof_json(space: SearchSpace) -> dict[str, Any]:
    """Returns how much of a space was proven: groups enter a space by their proof alone."""
    return {
        "groups": len(space.groups),
        "channels": sum(space.sizes.values()),
        "frozen": [asdict(part) for part in space.frozen],
    }


def _references_line(study: Study) -> str:
    """Returns what the plans without a search are within, whose widths come in whole channels."""
    budget = study.header.budget
    several = budget.is_range or budget.least_accuracy is not None
    where = "both ends and the middle of the budget" if several else "the budget"
    return f"uniform and global plans are the largest of their kind within {where}"


def _proof_line(space: SearchSpace) -> str:
    proof = proof_json(space)
    frozen = len(proof["frozen"])
    return (
        f"proof: {proof['groups']} groups with {proof['channels']} channels in all, proven on"
        f" this model before the search, {frozen} frozen part{'' if frozen == 1 else 's'}"
        " (evosearch inspect shows them)"
    )
