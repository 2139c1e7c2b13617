"""A search space as TOML: the sections that say which model it is of, then what was found."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w

from evosearch.errors import InputError
from evosearch.space.costform import BYTES, FORMS, ByteTerm, CostTerm, LatencyTerm, Monomial
from evosearch.space.mask import ChannelGroup, Member
from evosearch.space.space import FrozenGroup, SearchSpace


def space_to_toml(space: SearchSpace) -> str:
    """Returns a space as TOML: its reference sections, then `[traced]`."""
    traced = {
        "digest": space.digest,
        "group": [_group_to_json(group) for group in space.groups],
        "frozen": [vars(part) for part in space.frozen],
        "term": [_term_to_json(term) for term in space.terms],
    }
    if space.latency:
        traced["latency"] = [latency_to_json(term) for term in space.latency]
    for resource in BYTES:
        traced[resource] = [_bytes_to_json(term) for term in getattr(space, resource)]
    return tomli_w.dumps({**space.reference, "traced": traced})


def load_space(path: Path) -> SearchSpace:
    """Reads what `space_to_toml` gave.

    Raises:
        InputError: the file is no saved space, or its content does not match its digest.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        traced = data.pop("traced")
        digest = traced["digest"]
        space = SearchSpace(
            groups=tuple(_group_from_json(group) for group in traced["group"]),
            terms=tuple(_term_from_json(term) for term in traced["term"]),
            frozen=tuple(FrozenGroup(**part) for part in traced["frozen"]),
            latency=tuple(latency_from_json(part) for part in traced.get("latency", ())),
            **{r: tuple(map(_bytes_from_json, traced.get(r, ()))) for r in BYTES},
            reference=data,
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a saved search space ({error!r})") from error
    if space.digest != digest:
        raise InputError(f"{path}: groups or costs were edited (their digest no longer holds)")
    return space


def _group_to_json(group: ChannelGroup) -> dict[str, Any]:
    return {
        "name": group.name,
        "size": group.size,
        "min_keep": group.min_keep,
        "multiple_of": group.multiple_of,
        "members": [[m.tensor, m.dim, _encode_ranges(m.positions)] for m in group.members],
    }


def _group_from_json(data: dict[str, Any]) -> ChannelGroup:
    members = tuple(
        Member(tensor=tensor, dim=dim, positions=_decode_ranges(text))
        for tensor, dim, text in data["members"]
    )
    return ChannelGroup(**{**data, "members": members})


def _term_to_json(term: CostTerm) -> dict[str, Any]:
    forms = {resource: _monomials_to_json(getattr(term, resource)) for resource in FORMS}
    return {"name": term.name, **forms}


def _term_from_json(data: dict[str, Any]) -> CostTerm:
    forms = {resource: _monomials_from_json(data[resource]) for resource in FORMS}
    return CostTerm(name=data["name"], **forms)


def latency_to_json(term: LatencyTerm) -> dict[str, Any]:
    """Returns a part of the predicted latency as JSON."""
    return {"name": term.name, "picoseconds": _monomials_to_json(term.picoseconds)}


def latency_from_json(data: dict[str, Any]) -> LatencyTerm:
    """Reads what `latency_to_json` wrote."""
    return LatencyTerm(name=data["name"], picoseconds=_monomials_from_json(data["picoseconds"]))


def _bytes_to_json(term: ByteTerm) -> dict[str, Any]:
    return {"name": term.name, "bytes": _monomials_to_json(term.bytes)}


def _bytes_from_json(data: dict[str, Any]) -> ByteTerm:
    return ByteTerm(name=data["name"], bytes=_monomials_from_json(data["bytes"]))


def _monomials_to_json(monomials: Iterable[Monomial]) -> list[list[Any]]:
    return [[m.coefficient, *m.groups] for m in monomials]


def _monomials_from_json(data: Iterable[list[Any]]) -> tuple[Monomial, ...]:
    return tuple(Monomial(c, tuple(groups)) for c, *groups in data)


def _encode_ranges(positions: Iterable[int]) -> str:
    """Returns positions as half-open ranges: (0, 1, 2, 7) -> "0:3,7:8"."""
    ranges: list[list[int]] = []
    for position in positions:
        if ranges and ranges[-1][1] == position:
            ranges[-1][1] += 1
        else:
            ranges.append([position, position + 1])
    return ",".join(f"{start}:{stop}" for start, stop in ranges)


def _decode_ranges(text: str) -> tuple[int, ...]:
    ends = [part.split(":") for part in text.split(",")]
    return tuple(i for start, stop in ends for i in range(int(start), int(stop)))
