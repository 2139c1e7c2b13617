"""Reading configuration: TOML into pydantic models, with errors of one clear line."""

import tomllib
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from evosearch.errors import InputError, unknown_name

Schema = TypeVar("Schema", bound=BaseModel)


class Sectioned(BaseModel):
    """A config with sections beside its fields, whose models stand in a table.

    A program may add rows to the table, so they are no fields: pydantic keeps them as they came
    (`__pydantic_extra__`), and a subclass reads them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    @classmethod
    @abstractmethod
    def sections(cls) -> Mapping[str, type[BaseModel]]:
        """Returns the models of the sections, by name."""


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        InputError: it is missing, unreadable or malformed.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: malformed TOML: {error}") from error


def validated(schema: type[Schema], data: Mapping[str, Any], where: str) -> Schema:
    """Returns `data` as a config.

    Args:
        schema: the pydantic model that describes it.
        data: as read.
        where: the file, for messages.

    Raises:
        InputError: names the file, the key, what was expected, what came, and for an unknown
            key the nearest valid one.
    """
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            siblings = _keys_at(schema, first["loc"][:-1])
            reason: object = unknown_name("key", str(first["loc"][-1]), siblings)
            section = ".".join(str(part) for part in first["loc"][:-1])
            raise InputError(f"{where}: {f'[{section}] ' if section else ''}{reason}") from error
        reason = first["msg"].removeprefix("Value error, ")
        came = "" if first["type"] == "missing" else f", got {_short(first['input'])}"
        raise InputError(f"{where}: {place or 'content'}: {reason}{came}") from error


def _keys_at(schema: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Returns the valid keys of the section at a location in a schema."""
    for part in location:
        kind = _kinds(schema).get(str(part))
        kinds = (kind, *_arguments(kind))
        nested = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not nested:
            return []
        schema = nested[0]
    return list(_kinds(schema))


def _kinds(schema: type[BaseModel]) -> dict[str, Any]:
    """Returns the valid keys of a schema, each with the type of its value."""
    fields = {name: field.annotation for name, field in schema.model_fields.items()}
    return fields | (dict(schema.sections()) if issubclass(schema, Sectioned) else {})


def _arguments(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", ())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
