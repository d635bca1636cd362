"""A table of fields describes a TOML table once: what is read, what is refused, and its JSON Schema.

The invariant: a key that is not in the table of fields is an error that names the nearest known key, and a value
that is not of its kind is an error that names file, key, value and expectation. Nothing is guessed and nothing is
dropped.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from xrdz.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A number with its standard uncertainty; `su` is None when none was stated."""

    value: float
    su: float | None = None

    def to_json(self) -> list[float]:
        """Return `[value, su]`, or `[value]` without an uncertainty."""
        return [self.value] if self.su is None else [self.value, self.su]


@dataclass(frozen=True)
class Place:
    """Where a value stands: its file, its table ("" at the top) and its key with indices ("" for the table itself)."""

    file: str
    table: str = ""
    key: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.file, f"[{self.table}]" if self.table else "", self.key) if part)

    def at(self, index: int | str) -> Place:
        """Return the place of an entry of the list or free table that stands here."""
        return Place(self.file, self.table, f"{self.key}[{index}]" if isinstance(index, int) else f"{self.key}.{index}")

    def inside(self) -> Place:
        """Return the place of the table that stands here as the value of a key."""
        return Place(self.file, f"{self.table}.{self.key}" if self.table else self.key)


@dataclass(frozen=True)
class Kind:
    """What a value may be.

    Parameters
    ----------
    expected : the expectation in words, for messages
    convert : takes the TOML value and its place; returns the value to keep or raises `InputError`
    schema : the JSON Schema of the value
    fields : the fields of a nested table, so that a misplaced key can be told where it belongs
    """

    expected: str
    convert: Callable[[Any, Place], Any]
    schema: Mapping[str, Any]
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True)
class Field:
    """One key of a TOML table: its name, what it may be, and what it means (with unit and default)."""

    name: str
    kind: Kind
    description: str
    required: bool = False


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word most like `word`, ignoring case, or "" when there are none."""
    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.0)
    return by_lower[found[0]] if found else ""


def refuse(place: Place, value: object, expected: str) -> InputError:
    """Return the error of a value that is not of its kind."""
    shown = repr(value)
    return InputError(f"{place} = {shown if len(shown) <= 80 else shown[:77] + '...'}: expected {expected}")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file, with or without a byte order mark.

    Raises
    ------
    InputError
        If the file cannot be read or is not TOML; the message names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a TOML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error


def read_table(table: Mapping[str, Any], fields: Sequence[Field], place: Place) -> dict[str, Any]:
    """Return the converted values of a TOML table, under the names of its fields; absent keys stay absent.

    Parameters
    ----------
    table : as tomllib returns it
    fields : everything the table may hold
    place : the file and the table, for messages

    Raises
    ------
    InputError
        For an unknown key, a missing required key, or a value that is not of its kind.
    """
    by_name = {field.name: field for field in fields}
    for key in table:
        if key not in by_name:
            owners = [field.name for field in fields if key in {inner.name for inner in field.kind.fields}]
            remedy = f"it belongs in [{owners[0]}]" if owners else f"the nearest known key is {nearest(key, by_name)!r}"
            raise InputError(f"{place}: unknown key {key!r}; {remedy}. Known: {', '.join(by_name)}")
    for field in fields:
        if field.required and field.name not in table:
            raise InputError(f"{place}: {field.name!r} is missing; expected {field.kind.expected}")
    return {key: by_name[key].kind.convert(value, Place(place.file, place.table, key)) for key, value in table.items()}


def schema_of(fields: Sequence[Field]) -> dict[str, Any]:
    """Return the JSON Schema of a TOML table."""
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {field.name: {"description": field.description, **field.kind.schema} for field in fields},
    }
    required = [field.name for field in fields if field.required]
    return {**schema, "required": required} if required else schema


def document_schema(fields: Sequence[Field], title: str) -> dict[str, Any]:
    """Return the JSON Schema of a whole TOML file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema_of(fields)}


def text(expected: str = "text in quotes") -> Kind:
    """Return the kind of a string that is not blank; surrounding blanks are dropped."""

    def convert(value: Any, place: Place) -> str:
        if not isinstance(value, str) or not value.strip():
            raise refuse(place, value, expected)
        return value.strip()

    return Kind(expected, convert, {"type": "string", "minLength": 1})


def choice(*options: str) -> Kind:
    """Return the kind of a string that is one of `options`."""
    expected = " or ".join(f'"{option}"' for option in options)

    def convert(value: Any, place: Place) -> str:
        if value not in options:
            raise refuse(place, value, expected)
        return str(value)

    return Kind(expected, convert, {"enum": list(options)})


def number(
    expected: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> Kind:
    """Return the kind of a finite number within its limits."""

    def convert(value: Any, place: Place) -> float:
        fits = (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (above is None or value > above)
            and (at_least is None or value >= at_least)
            and (below is None or value < below)
            and (at_most is None or value <= at_most)
        )
        if not fits:
            raise refuse(place, value, expected)
        return float(value)

    limits = {"exclusiveMinimum": above, "minimum": at_least, "exclusiveMaximum": below, "maximum": at_most}
    return Kind(expected, convert, {"type": "number", **{key: at for key, at in limits.items() if at is not None}})


def estimate(value_kind: Kind) -> Kind:
    """Return the kind of a value, alone or as `[value, standard uncertainty]`."""
    expected = f"{value_kind.expected}, or [value, standard uncertainty]"
    su_kind = number("a standard uncertainty, zero or more", at_least=0.0)

    def convert(value: Any, place: Place) -> Estimate:
        if not isinstance(value, list):
            return Estimate(value_kind.convert(value, place))
        if not 1 <= len(value) <= 2:
            raise refuse(place, value, expected)
        su = su_kind.convert(value[1], place.at(1)) if len(value) == 2 else None
        return Estimate(value_kind.convert(value[0], place.at(0)), su)

    pair = {
        "type": "array",
        "prefixItems": [dict(value_kind.schema), dict(su_kind.schema)],
        "items": False,
        "minItems": 1,
    }
    return Kind(expected, convert, {"anyOf": [dict(value_kind.schema), pair]})


def list_of(item: Kind, expected: str, *, at_least: int = 0) -> Kind:
    """Return the kind of a list with items of one kind, kept as a tuple."""

    def convert(value: Any, place: Place) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) < at_least:
            raise refuse(place, value, expected)
        return tuple(item.convert(entry, place.at(index)) for index, entry in enumerate(value))

    limit = {"minItems": at_least} if at_least else {}
    return Kind(expected, convert, {"type": "array", "items": dict(item.schema), **limit})


def ascending_pair(item: Kind, expected: str) -> Kind:
    """Return the kind of `[low, high]` with low < high, kept as a tuple."""

    def convert(value: Any, place: Place) -> tuple[float, float]:
        if not isinstance(value, list) or len(value) != 2:
            raise refuse(place, value, expected)
        low, high = (item.convert(entry, place.at(index)) for index, entry in enumerate(value))
        if not low < high:
            raise refuse(place, value, expected)
        return low, high

    return Kind(expected, convert, {"type": "array", "items": dict(item.schema), "minItems": 2, "maxItems": 2})


def table(fields: tuple[Field, ...], build: Callable[[dict[str, Any], Place], Any], expected: str) -> Kind:
    """Return the kind of a nested table, turned into an object by `build(values, place)`."""

    def convert(value: Any, place: Place) -> Any:
        if not isinstance(value, dict):
            raise refuse(place, value, expected)
        return build(read_table(value, fields, place.inside()), place.inside())

    return Kind(expected, convert, schema_of(fields), fields)


def mapping_of(item: Kind, expected: str) -> Kind:
    """Return the kind of a table with free keys and values of one kind."""

    def convert(value: Any, place: Place) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise refuse(place, value, expected)
        return {key: item.convert(entry, place.at(key)) for key, entry in value.items()}

    return Kind(expected, convert, {"type": "object", "additionalProperties": dict(item.schema)})
