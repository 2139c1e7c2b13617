"""The certificates of a run on disk: what was measured of whether its winners keep its budgets."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evosearch.errors import InputError
from evosearch.files import write_json, writing
from evosearch.space.budget import Budget
from evosearch.study.accuracy_certificate import AccuracyCertificate
from evosearch.study.latency_certificate import LatencyCertificate

CERTIFICATES = "certificates.json"

Certificate = LatencyCertificate | AccuracyCertificate

_KINDS: dict[str, type[LatencyCertificate] | type[AccuracyCertificate]] = {
    "latency": LatencyCertificate,
    "accuracy": AccuracyCertificate,
}


def load_certificates(folder: Path) -> tuple[Certificate, ...]:
    """Returns what a run certified so far, in order.

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


def add_certificate(folder: Path, certificate: Certificate) -> None:
    """Writes a certificate behind those that a run has.

    Raises:
        StorageError: it cannot be written.
    """
    every = (*load_certificates(folder), certificate)
    with writing(folder / CERTIFICATES):
        write_json(folder / CERTIFICATES, [_to_json(known) for known in every])


def _to_json(certificate: Certificate) -> dict[str, Any]:
    names = {kind: name for name, kind in _KINDS.items()}
    budget = {"budget": certificate.budget.to_json()}
    return {"kind": names[type(certificate)], **asdict(certificate), **budget}


def _from_json(kind: str, budget: Mapping[str, Any], **record: Any) -> Certificate:
    """Reads what `_to_json` gave."""
    return _KINDS[kind].of_record(Budget.from_json(budget), record)
