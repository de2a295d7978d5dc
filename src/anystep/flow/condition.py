"""What an example is conditioned on: nothing, one tensor, or a dict of tensors, with the examples on the first axis.

An entry is a class label (int64 [B]) or a feature (floating point [B, ...]). "Nothing given" has the same form: the
label ``num_classes``, and NaN in every element of a feature. Code from the data set to the generator handles conditions
through the functions here, so that it does not depend on their form.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from anystep.core.errors import UsageError

Condition = None | Tensor | Mapping[str, Tensor]

#: name of the one entry of a condition that is a lone tensor
LONE_LABEL, LONE_FEATURE = "label", "feature"


class Entry(NamedTuple):
    """One tensor of a condition.

    ``shape`` is that of one example (() for labels); ``classes`` are the names of a label's classes; ``drop``: whether
    training may replace it by "nothing given", which classifier-free guidance needs.
    """

    kind: Literal["label", "feature"]
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] | None = None
    drop: bool = True

    def nothing(self, length: int, device: torch.device | None) -> Tensor:
        """Return "nothing given" for ``length`` examples."""
        if self.kind == "label":
            return torch.full((length,), len(self.classes or ()), dtype=torch.int64, device=device)
        return torch.full((length, *self.shape), torch.nan, device=device)


@dataclass(frozen=True)
class ConditionSpec:
    """The entries of a condition by name; none for unconditional data.

    ``single``: the condition is a lone tensor, not a dict. Raises UsageError for more than one label entry, a label
    without classes, a lone tensor of several entries, or a name that parameters cannot have.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    single: bool = True

    def __post_init__(self) -> None:
        if self.single and len(self.entries) > 1:
            raise UsageError(f"a condition of {len(self.entries)} entries is a dict, not a lone tensor")
        labels = [name for name, entry in self.entries.items() if entry.kind == "label"]
        if len(labels) > 1:
            raise UsageError(f"a condition has at most one class label, got {' and '.join(labels)}")
        for name, entry in self.entries.items():
            if not name.isidentifier():
                raise UsageError(f"the name of a condition must be letters, digits and _, got {name!r}")
            if entry.kind == "label" and not entry.classes:
                raise UsageError(f"num_classes must be at least 1, got 0 for the label {name!r}")

    def __bool__(self) -> bool:
        return bool(self.entries)

    @property
    def label(self) -> str | None:
        """Name of the class label, or None."""
        return next((name for name, entry in self.entries.items() if entry.kind == "label"), None)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, which is also the label that means "nothing given"; None without a class label."""
        return None if self.label is None else len(self.entries[self.label].classes or ())

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(name for name, entry in self.entries.items() if entry.kind == "feature")

    def named(self, condition: Condition) -> dict[str, Tensor]:
        """Return the tensors by name. Raises UsageError for another form, missing or unknown names."""
        if condition is None:
            return {}
        if isinstance(condition, Mapping):
            given, form = dict(condition), f"a dict of {', '.join(condition)}"
        else:
            given = {next(iter(self.entries), LONE_LABEL): condition}
            form = f"a tensor of shape {list(condition.shape)}"
        if isinstance(condition, Mapping) == self.single:
            expected = "one tensor" if self.single else f"a dict of {', '.join(self.entries)}"
            raise UsageError(f"the condition must be {expected}, got {form}")
        if given.keys() != self.entries.keys():
            raise UsageError(
                f"the condition must have {', '.join(self.entries) or 'no entries'}, got {', '.join(given) or 'none'}"
            )
        return given

    def of(self, named: Mapping[str, Tensor]) -> Condition:
        """Return the tensors in the form of the condition: None, a lone tensor, or a dict."""
        if not named:
            return None
        return next(iter(named.values())) if self.single else dict(named)

    def class_label(self, condition: Condition) -> Tensor | None:
        """Return the class labels [B] of a condition, or None where it has none."""
        return None if condition is None or self.label is None else self.named(condition)[self.label]

    def nothing(self, length: int, device: torch.device | None = None) -> Condition:
        """Return "nothing given" for ``length`` examples. Raises UsageError for an entry that is never dropped."""
        for name, entry in self.entries.items():
            if not entry.drop:
                raise UsageError(f"{name} must be given: this model was never trained without it")
        return self.of({name: entry.nothing(length, device) for name, entry in self.entries.items()})

    def null(self, condition: Condition) -> Condition:
        """Return the condition with "nothing given" in every entry that training drops; the others are unchanged."""
        named = self.named(condition)
        for name, tensor in named.items():
            if self.entries[name].drop:
                named[name] = self.entries[name].nothing(len(tensor), tensor.device)
        return self.of(named)

    def check(self, condition: Condition, length: int) -> None:
        """Raise UsageError unless the condition fits: entries, shapes, number of examples, labels in range.

        The range of labels is checked on the CPU only: elsewhere the check would wait for the device, whose own
        assertion stops it.
        """
        for name, tensor in self.named(condition).items():
            entry = self.entries[name]
            if tuple(tensor.shape) != (length, *entry.shape):
                shape, found = [length, *entry.shape], list(tensor.shape)
                raise UsageError(f"{name} must have shape {shape} for {length} examples, got {found}")
            if tensor.is_floating_point() != (entry.kind == "feature"):
                kind = "floating point" if entry.kind == "feature" else "int64"
                raise UsageError(f"{name} must be {kind}, got {tensor.dtype}")
            if entry.kind == "label" and tensor.device.type == "cpu" and not torch.compiler.is_compiling():
                null = len(entry.classes or ())
                wrong = tensor[(tensor < 0) | (tensor > null)]
                if len(wrong):
                    raise UsageError(f"{name} must be 0 ... {null - 1}, or {null} for null, got {int(wrong[0])}")


UNCONDITIONAL = ConditionSpec()


def class_labels(classes: int | Sequence[str], drop: bool = True) -> ConditionSpec:
    """Return the spec of a lone class label: with this number of classes, "0", "1", ..., or with these names."""
    names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
    return ConditionSpec({LONE_LABEL: Entry("label", (), names, drop)})


def transform(function: Callable[..., Tensor], *conditions: Any) -> Condition:
    """Return ``function`` of the tensors of the same name in conditions of one form."""
    first = conditions[0]
    if isinstance(first, Mapping):
        return {name: function(*(condition[name] for condition in conditions)) for name in first}
    return None if first is None else function(*conditions)


def rows(condition: Condition, index: Any) -> Condition:
    """Return some examples: ``index`` is a slice, a mask or numbers."""
    return transform(lambda tensor: tensor[index], condition)


def cat(*conditions: Condition) -> Condition:
    """Return the examples of several conditions of one form, concatenated."""
    return transform(lambda *tensors: torch.cat(tensors), *conditions)


def flat(tensor: Tensor) -> Tensor:
    """Return the elements of each example, [B, F], of any [B, ...]; B may be 0, F 1."""
    return tensor.reshape(len(tensor), tensor.shape[1:].numel())


def fill_missing(feature: Tensor) -> Tensor:
    """Return a feature [B, ...] with NaN in every element of an example that has any: "nothing given"."""
    missing = flat(feature).isnan().any(1)
    return torch.where(missing.reshape(-1, *[1] * (feature.ndim - 1)), torch.nan, feature)


def to(condition: Condition, device: torch.device) -> Condition:
    """Return the condition on a device."""
    return transform(lambda tensor: tensor.to(device), condition)


def where(mask: Tensor, one: Condition, other: Condition) -> Condition:
    """Return each example of ``one`` where ``mask`` [B] holds, else that of ``other``."""
    return transform(lambda a, b: torch.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b), one, other)


def same(one: Condition, other: Condition) -> Tensor:
    """Return where two conditions of one form are equal, bool [B]; NaN is equal to NaN."""
    equal: Any = transform(lambda a, b: flat((a == b) | (a.isnan() & b.isnan())).all(1), one, other)
    return torch.stack(list(equal.values()) if isinstance(equal, Mapping) else [equal]).all(0)
