"""The claims of a run on disk: whether its winners keep its budgets, what its networks lose."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evosearch.errors import InputError
from evosearch.files import write_json, writing
from evosearch.space.budget import Budget
from evosearch.study.accuracy_certificate import AccuracyCertificate, ConfirmedNetwork
from evosearch.study.latency_certificate import LatencyCertificate

CERTIFICATES = "certificates.json"

Certificate = LatencyCertificate | AccuracyCertificate
Claim = Certificate | ConfirmedNetwork

_NETWORK = "network"
_KINDS: dict[str, type[LatencyCertificate] | type[AccuracyCertificate]] = {
    "latency": LatencyCertificate,
    "accuracy": AccuracyCertificate,
}


def load_certificates(folder: Path) -> tuple[Certificate, ...]:
    """Returns what a run certified so far, in order.

    Raises:
        InputError: the file cannot be read.
    """
    claims = load_claims(folder)
    return tuple(known for known in claims if not isinstance(known, ConfirmedNetwork))


def load_claims(folder: Path) -> tuple[Claim, ...]:
    """Returns what a run certified and confirmed so far, in order.

    Raises:
        InputError: the file cannot be read.
    """
    path = folder / CERTIFICATES
    if not path.is_file():
        return ()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_from_json(**entry) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not certificates ({error!r})") from error


def certificate_of(folder: Path, budget: Budget) -> Certificate | None:
    """Returns the last certificate of a budget; None where a run has none for it.

    Raises:
        InputError: the file cannot be read.
    """
    found = [known for known in load_certificates(folder) if known.budget == budget]
    return found[-1] if found else None


def add_claim(folder: Path, claim: Claim) -> None:
    """Writes a claim behind those that a run has.

    Raises:
        StorageError: it cannot be written.
    """
    every = (*load_claims(folder), claim)
    with writing(folder / CERTIFICATES):
        write_json(folder / CERTIFICATES, [_to_json(known) for known in every])


def _to_json(claim: Claim) -> dict[str, Any]:
    if isinstance(claim, ConfirmedNetwork):
        return {"kind": _NETWORK, **asdict(claim)}
    names = {kind: name for name, kind in _KINDS.items()}
    record = {"kind": names[type(claim)], **asdict(claim), "budget": claim.budget.to_json()}
    if isinstance(claim, AccuracyCertificate):
        if claim.latency is None:
            del record["latency"]
        else:
            del record["latency"]["budget"]  # the same
    return record


def _from_json(kind: str, **record: Any) -> Claim:
    """Reads what `_to_json` gave."""
    if kind == _NETWORK:
        return ConfirmedNetwork.of_record(record)
    budget = Budget.from_json(record.pop("budget"))
    return _KINDS[kind].of_record(budget, record)
