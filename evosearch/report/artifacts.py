"""The artifacts of a run as reports see them: folder and finished network; without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import final

from evosearch.errors import InputError
from evosearch.export.card import CARD, PLAN, network_from_card
from evosearch.run.folder import RunFolder
from evosearch.space.mask import Mask
from evosearch.study.networks import NamedNetwork


@final
@dataclass(frozen=True, kw_only=True)
class FoundArtifact:
    """An artifact of a run.

    Attributes:
        folder: where it lies.
        network: the one that it holds, as measured when it was saved.
    """

    folder: Path
    network: NamedNetwork


def artifacts_of(folder: Path) -> dict[str, FoundArtifact]:
    """Returns the fine-tuned networks of a run, by the plan that each is of ("trial 17").

    One that cannot be read is left out: the report shows what there is. So is one that was cut
    and not trained, which has the plan's own name.
    """
    found = {}
    for path in sorted(RunFolder(folder).artifacts.glob(f"*/{CARD}")):
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
            plan = json.loads(path.with_name(PLAN).read_text(encoding="utf-8"))
            mask = Mask.from_json(plan["keep"], plan["sizes"])
            network = network_from_card(card["networks"][-1], mask)
            if network.name != card["plan"]:
                found[card["plan"]] = FoundArtifact(folder=path.parent, network=network)
        except (OSError, ValueError, LookupError, TypeError, InputError):
            continue
    return found
