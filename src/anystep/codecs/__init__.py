"""What an example is, one kind a file: stored rows <-> what a network sees. `CODECS` is the registry."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from anystep.codecs.auto import Auto, chosen
from anystep.codecs.base import Codec, Looks, RowReader, Rows, sampled, statistic
from anystep.codecs.conditions import encode_condition
from anystep.codecs.pixels import Pixels
from anystep.codecs.vectors import Vectors
from anystep.core.registry import Registry, find_class

CODECS: Registry[type[Codec]] = Registry({"auto": Auto, "pixels": Pixels, "vectors": Vectors})


def usual(dtype: np.dtype[Any], axes: int) -> Codec | None:
    """Return the codec for an array of that type and number of axes, rows first; None where there is no usual one."""
    if dtype == np.uint8 and axes == 4:
        return Pixels()
    return Vectors() if dtype == np.float32 and axes == 2 else None


def to_json(codec: Codec) -> dict[str, Any]:
    """Return a fitted codec as plain values: its name, options and statistics."""
    return {"name": CODECS.written(type(codec)), **dataclasses.asdict(codec)}


def from_json(values: Mapping[str, Any]) -> Codec:
    """Return the fitted codec that `to_json` wrote. Raises ValueError for a name or a field that it does not know."""
    name = str(values.get("name"))
    if name not in CODECS and ":" not in name:
        raise ValueError(f"codec.name must be one of {', '.join(CODECS)}, got {name!r}")
    kind: type[Codec] = CODECS[name] if name in CODECS else find_class(name, Codec)  # type: ignore[type-abstract]
    fields = {f.name: f.init for f in dataclasses.fields(kind)}
    given = {key: _tuples(value) for key, value in values.items() if key != "name"}
    if unknown := given.keys() - fields.keys():
        raise ValueError(f"codec {name} has no field {min(unknown)}")
    options = {key: value for key, value in given.items() if fields[key]}
    return kind(**options).fitted(**{key: value for key, value in given.items() if not fields[key]})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


__all__ = [
    "CODECS",
    "Auto",
    "Codec",
    "Looks",
    "Pixels",
    "RowReader",
    "Rows",
    "Vectors",
    "chosen",
    "encode_condition",
    "from_json",
    "sampled",
    "statistic",
    "to_json",
    "usual",
]
