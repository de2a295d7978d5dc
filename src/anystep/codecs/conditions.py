"""What a network sees of a condition: features normalised, each by a codec that was fitted to it."""

from collections.abc import Mapping

from torch import Tensor

from anystep.codecs.base import Codec
from anystep.flow.condition import Condition, ConditionSpec, flat


def encode_condition(codecs: Mapping[str, Codec], spec: ConditionSpec, condition: Condition) -> Condition:
    """Return a condition as networks see it, of one in the data's unit; labels, and NaN in features, are unchanged.

    ``codecs``: by entry. A codec sees a feature flat, float32 [B, F], and does not change its shape.
    """

    def encode(codec: Codec, values: Tensor) -> Tensor:
        return codec.encode(flat(values.float()), None).reshape(values.shape)

    named = spec.named(condition)
    return spec.of({name: encode(codecs[name], values) if name in codecs else values for name, values in named.items()})
