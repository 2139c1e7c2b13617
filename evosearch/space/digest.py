"""The digest of a value: of its fields and theirs, whatever it prints as."""

from dataclasses import fields, is_dataclass
from hashlib import sha256
from typing import Any


def digest_of(value: Any) -> str:
    """Returns 16 hexadecimal digits that change with any field of a value.

    Args:
        value: made of dataclasses, tuples, and what Python writes the same in every process.
    """
    return sha256(_text(value).encode()).hexdigest()[:16]


def _text(value: Any) -> str:
    if is_dataclass(value):
        inner = ", ".join(
            f"{field.name}={_text(getattr(value, field.name))}" for field in fields(value)
        )
        return f"{type(value).__qualname__}({inner})"
    if isinstance(value, tuple):
        inner = ", ".join(map(_text, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value)
