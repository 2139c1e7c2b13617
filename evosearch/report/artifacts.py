"""What the artifacts of a run say of its networks on the test split."""

import json
from pathlib import Path
from typing import Any


def artifact_cards(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the cards of a run's artifacts, by the plan that each is of ("trial 17").

    A card that cannot be read is left out: the report shows what there is.
    """
    cards = {}
    for path in sorted(folder.glob("artifacts/*/card.json")):
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
            cards[card["plan"]] = {**card, "folder": str(path.parent)}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return cards


def distilled(card: dict[str, Any]) -> dict[str, Any]:
    """Returns the entry of the network that the artifact holds; the others stand beside it."""
    entry: dict[str, Any] = card["networks"][-1]
    return entry
