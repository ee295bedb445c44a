"""Replies as dataclasses: what is missing or of another type is an error, and what is new is left out."""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any, Literal, TypeVar, Union

from .errors import ReplyError

T = TypeVar("T")


def decode(kind: type[T], value: Any, where: str = "the reply") -> T:
    return typing.cast(T, _decode(kind, value, where))


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if kind is Any or origin is Literal:  # a newer server may know more words
        return value
    if origin in (Union, types.UnionType):
        options = [each for each in typing.get_args(kind) if each is not types.NoneType]
        if value is None:
            return None
        return _decode(options[0], value, where) if len(options) == 1 else value
    if origin is list:
        (item,) = typing.get_args(kind)
        if not isinstance(value, list):
            raise _mismatch(where, "a list", value)
        return [_decode(item, each, f"{where}[{i}]") for i, each in enumerate(value)]
    if origin is dict:
        _, item = typing.get_args(kind)
        if not isinstance(value, dict):
            raise _mismatch(where, "an object", value)
        return {key: _decode(item, each, f"{where}.{key}") for key, each in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise _mismatch(where, "an object", value)
        given = {}
        for name, hint, required in _fields(kind):
            if name in value:
                given[name] = _decode(hint, value[name], f"{where}.{name}")
            elif required:
                raise _mismatch(f"{where}.{name}", "there", None)
        return kind(**given)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _mismatch(where, kind.__name__, value)
    return value


@cache
def _fields(kind: Any) -> list[tuple[str, Any, bool]]:
    hints = typing.get_type_hints(kind)
    return [
        (field.name, hints[field.name], field.default is dataclasses.MISSING) for field in dataclasses.fields(kind)
    ]


def _mismatch(where: str, expected: str, value: Any) -> ReplyError:
    return ReplyError(
        "BAD_REPLY",
        f"{where} should be {expected} and is {type(value).__name__}",
        hint="the server and this package may be of different versions",
    )
