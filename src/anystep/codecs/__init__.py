"""What an example is, one kind per file: stored rows <-> what a network sees. `CODECS` is the registry."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from anystep.codecs.base import Auto as Auto
from anystep.codecs.base import Codec as Codec
from anystep.codecs.base import Looks as Looks
from anystep.codecs.base import RowReader as RowReader
from anystep.codecs.base import Rows as Rows
from anystep.codecs.base import sampled as sampled
from anystep.codecs.base import statistic as statistic
from anystep.codecs.pixels import Pixels as Pixels
from anystep.codecs.vectors import Vectors as Vectors
from anystep.core.registry import Registry
from anystep.flow.condition import Condition, ConditionSpec, flat

CODECS: Registry[type[Codec]] = Registry({"auto": Auto, "pixels": Pixels, "vectors": Vectors})


def default_codec(dtype: np.dtype[Any], axes: int) -> Codec | None:
    """Return the default codec for an array of this type and number of axes, rows first; None if there is none."""
    if dtype == np.uint8 and axes == 4:
        return Pixels()
    return Vectors() if dtype == np.float32 and axes == 2 else None


def encode_condition(codecs: Mapping[str, Codec], spec: ConditionSpec, condition: Condition) -> Condition:
    """Return the condition as networks see it, from values in the data's unit. Labels and NaN are unchanged.

    ``codecs``: fitted ones of features, by entry. A codec sees a feature flat, float32 [B, F], and keeps its shape.
    """

    def encode(name: str, values: Tensor) -> Tensor:
        if name not in codecs:
            return values
        return codecs[name].encode(flat(values.float()), None).reshape(values.shape)

    return spec.of({name: encode(name, values) for name, values in spec.named(condition).items()})


def codec_to_json(codec: Codec) -> dict[str, Any]:
    """Return a fitted codec as plain values: its name, options and statistics."""
    return {"name": CODECS.written(type(codec)), **dataclasses.asdict(codec)}


def codec_from_json(values: Mapping[str, Any]) -> Codec:
    """Return the fitted codec of `codec_to_json`. Raises ValueError for an unknown name or field."""
    kind: type[Codec] = CODECS.find(str(values.get("name")), Codec, "codec.name")
    given = {key: _tuples(value) for key, value in values.items() if key != "name"}
    options = {f.name: given.pop(f.name) for f in dataclasses.fields(kind) if f.init and f.name in given}
    return kind(**options).fitted(**given)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
