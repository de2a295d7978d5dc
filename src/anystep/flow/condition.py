"""What an example is given: nothing, one tensor, or a dict of tensors, with the examples on the first axis.

An entry is a class label (int64 [B]) or a feature (floating point [B, ...]). "Nothing given" has the same form: the
label ``num_classes``, and NaN in every element of a feature. Everything from the data set to the generator handles
conditions through the functions here, so that none of it knows which form a condition has.
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

    ``shape`` is that of one example (() for labels); ``classes`` are the names of a label's classes; ``drop`` says
    whether training may replace it by "nothing given", which classifier-free guidance needs.
    """

    kind: Literal["label", "feature"]
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] | None = None
    drop: bool = True


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

    def __hash__(self) -> int:
        return hash((tuple(self.entries.items()), self.single))

    def __bool__(self) -> bool:
        return bool(self.entries)

    @property
    def label(self) -> str | None:
        """Name of the class label, or None."""
        return next((name for name, entry in self.entries.items() if entry.kind == "label"), None)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, or None without a class label."""
        return None if self.label is None else self.entries[self.label].classes

    @property
    def num_classes(self) -> int | None:
        """Number of classes, which is also the label that means "nothing given"; None without a class label."""
        return None if self.class_names is None else len(self.class_names)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(name for name, entry in self.entries.items() if entry.kind == "feature")

    @property
    def droppable(self) -> bool:
        """Whether every entry may be left out in training, so that a condition of None has a meaning."""
        return all(entry.drop for entry in self.entries.values())

    def named(self, condition: Condition) -> dict[str, Tensor]:
        """Return the tensors by name. Raises UsageError for another form, missing or unknown names."""
        if condition is None:
            return {}
        given = condition if isinstance(condition, Mapping) else {next(iter(self.entries), LONE_LABEL): condition}
        if isinstance(condition, Mapping) == self.single:
            form = "one tensor" if self.single else f"a dict of {', '.join(self.entries)}"
            raise UsageError(f"the condition must be {form}, got {describe(condition)}")
        if given.keys() != self.entries.keys():
            raise UsageError(
                f"the condition must have {', '.join(self.entries) or 'no entries'}, got {', '.join(given) or 'none'}"
            )
        return dict(given)

    def of(self, named: Mapping[str, Tensor]) -> Condition:
        """Return the tensors in the form of the condition: None, a lone tensor, or a dict."""
        if not named:
            return None
        return next(iter(named.values())) if self.single else dict(named)

    def class_label(self, condition: Condition) -> Tensor | None:
        """Return the class labels [B] of a condition, or None where it has none."""
        return None if condition is None or self.label is None else self.named(condition)[self.label]

    def nothing(self, length: int, device: torch.device | None = None) -> Condition:
        """Return "nothing given" for ``length`` examples. Raises UsageError for an entry that is never left out."""
        for name, entry in self.entries.items():
            if not entry.drop:
                raise UsageError(f"{name} must be given: this model was never trained without it")
        return self.of({name: _nothing(entry, length, device) for name, entry in self.entries.items()})

    def null(self, condition: Condition) -> Condition:
        """Return "nothing given" in place of every entry that may be left out; the others are unchanged."""
        return self.of(
            {
                name: _nothing(self.entries[name], len(tensor), tensor.device) if self.entries[name].drop else tensor
                for name, tensor in self.named(condition).items()
            }
        )

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
                _check_labels(name, tensor, len(entry.classes or ()))


def _check_labels(name: str, label: Tensor, classes: int) -> None:
    wrong = label[(label < 0) | (label > classes)]
    if len(wrong):
        raise UsageError(f"{name} must be 0 ... {classes - 1}, or {classes} for null, got {int(wrong[0])}")


def _nothing(entry: Entry, length: int, device: torch.device | None) -> Tensor:
    if entry.kind == "label":
        return torch.full((length,), len(entry.classes or ()), dtype=torch.int64, device=device)
    return torch.full((length, *entry.shape), torch.nan, device=device)


UNCONDITIONAL = ConditionSpec()


def class_labels(classes: int | Sequence[str], drop: bool = True) -> ConditionSpec:
    """Return the spec of a lone class label: of so many classes, called "0", "1", ..., or of these names."""
    names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
    return ConditionSpec({LONE_LABEL: Entry("label", (), names, drop)})


def feature_vector(*shape: int, drop: bool = True) -> ConditionSpec:
    """Return the spec of a lone feature of this shape (without the batch axis)."""
    return ConditionSpec({LONE_FEATURE: Entry("feature", shape, None, drop)})


def describe(condition: Condition) -> str:
    """Return the form of a condition in a few words, for messages."""
    if isinstance(condition, Mapping):
        return f"a dict of {', '.join(condition) or 'nothing'}"
    return "None" if condition is None else f"a tensor of shape {list(condition.shape)}"


def transform(function: Callable[..., Tensor], condition: Condition, *others: Condition) -> Condition:
    """Return ``function`` of each tensor, with the tensors of the same name in ``others``."""
    if condition is None:
        return None
    if isinstance(condition, Mapping):
        rest = [other if isinstance(other, Mapping) else {} for other in others]
        return {name: function(tensor, *(other[name] for other in rest)) for name, tensor in condition.items()}
    return function(condition, *others)


def rows(condition: Condition, index: Any) -> Condition:
    """Return some examples: ``index`` is a slice, a mask or numbers."""
    return transform(lambda tensor: tensor[index], condition)


def cat(*conditions: Condition) -> Condition:
    """Return the examples of several conditions of one form, one after the other."""
    return transform(lambda *tensors: torch.cat(tensors), *conditions)


def flat(tensor: Tensor) -> Tensor:
    """Return the numbers of each example in a row, [B, F], of any [B, ...]; B may be 0, F 1."""
    return tensor.reshape(len(tensor), tensor.shape[1:].numel())


def _per_example(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (like.ndim - 1))


def fill_missing(feature: Tensor) -> Tensor:
    """Return a feature [B, ...] with NaN in every element of an example that has any: "nothing given"."""
    return torch.where(_per_example(flat(feature).isnan().any(1), feature), torch.nan, feature)


def to(condition: Condition, device: torch.device) -> Condition:
    """Return the condition on a device."""
    return transform(lambda tensor: tensor.to(device), condition)


def where(mask: Tensor, one: Condition, other: Condition) -> Condition:
    """Return each example of ``one`` where ``mask`` [B] holds, else that of ``other``."""
    return transform(lambda a, b: torch.where(_per_example(mask, a), a, b), one, other)


def length(condition: Condition) -> int | None:
    """Return the number of examples; None for None. Raises UsageError when the entries differ."""
    if condition is None:
        return None
    tensors = condition if isinstance(condition, Mapping) else {LONE_LABEL: condition}
    counts = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise UsageError(f"the entries of a condition must have one number of examples: {found}")
    return next(iter(counts.values()))


def same(one: Condition, other: Condition) -> Tensor:
    """Return where two conditions of one form are equal, bool [B]; NaN is equal to NaN."""
    equal: list[Tensor] = []

    def compare(a: Tensor, b: Tensor) -> Tensor:
        match = a == b
        if a.is_floating_point():
            match = match | (a.isnan() & b.isnan())
        equal.append(flat(match).all(1))
        return match

    transform(compare, one, other)
    return torch.stack(equal).all(0)
