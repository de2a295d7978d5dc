"""The fields of options: types and ranges are declared with a field, and one checker reads them.

    share: Annotated[float, Interval(ge=0, lt=1)] = 0.25

Ranges are those of the package `annotated-types`, and the `Rule` objects below.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Interval, Le, Lt, MultipleOf

from anystep.core.errors import UsageError

#: types of single values, and what a message calls them
TYPE_NAMES = {bool: "True or False", int: "an integer", float: "a number", str: "text"}


@dataclass(frozen=True)
class Rule:
    """A range that `annotated-types` lacks: whether it ``holds`` for a value, and the ``words`` for what it must be."""

    holds: Callable[[Any], bool]
    words: str


Finite = Rule(math.isfinite, "finite")
NotEmpty = Rule(lambda text: bool(text.strip()), "text that is not empty")
PowerOfTwo = Rule(lambda n: n >= 2 and not n & (n - 1), "a power of two of at least 2")

Fraction = Annotated[float, Interval(ge=0, le=1)]
PositiveFloat = Annotated[float, Gt(0), Finite]


class Checked:
    """Base of frozen dataclasses of options: every field has its declared type and range once the object exists.

    A list becomes a tuple and an integer a float where the field is declared so. Raises UsageError that names the
    field, the value and the rule. Rules between fields belong in `check_combinations`. Messages name a field with its
    section of the config: ``class Objective(Checked, section="objective")`` gives objective.share.
    """

    _section: ClassVar[str] = ""

    def __init_subclass__(cls, section: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if section is not None:
            cls._section = section

    def __post_init__(self) -> None:
        check_fields(self)
        self.check_combinations()

    def check_combinations(self) -> None:
        """Raise UsageError when fields do not go together. Each has its type and range already."""


def check_fields(options: Any) -> None:
    """Check every field of a dataclass by its annotation, and convert lists and integers, as `Checked` documents."""
    section = getattr(options, "_section", "")
    cls: Any = type(options)
    for name, kind in field_types(cls).items():
        before = getattr(options, name)
        value = check_value(f"{section}.{name}" if section else name, before, kind)
        if value is not before:
            object.__setattr__(options, name, value)


@cache
def field_types(options: Any) -> Mapping[str, Any]:
    """Return each field's annotation. Raises UsageError for a type that a config cannot hold."""
    try:
        types = get_type_hints(options, include_extras=True)
    except NameError as error:
        raise UsageError(f"{options.__name__}: the type of a field cannot be read: {error}") from error
    types = {f.name: types[f.name] for f in dataclasses.fields(options) if f.init}  # not the statistics of a codec
    for name, kind in types.items():
        if not fits_config(kind):
            declared = kind.__name__ if isinstance(kind, type) else kind
            raise UsageError(
                f"{options.__name__}.{name} is declared as {declared}, which a config cannot hold: a field is bool, "
                "int, float, str, a Literal, a tuple of these, or one of these or None"
            )
    return types


def fits_config(kind: Any) -> bool:
    """Return whether a config can hold values of this type."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return fits_config(args[0])
    if origin in (Union, UnionType):
        return len(args) == 2 and NoneType in args and fits_config(args[args[0] is NoneType])
    if origin is tuple:
        return all(item is Ellipsis or fits_config(item) for item in args)
    return origin is Literal or kind in TYPE_NAMES


def check_value(name: str, value: Any, kind: Any, rules: tuple[Rule, ...] = ()) -> Any:
    """Return ``value`` converted to the type ``kind``. Raises UsageError for another type or a broken rule.

    Rules hold for each item of a tuple. None passes where it is declared.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        own = tuple(rule for metadata in args[1:] for rule in rules_of(metadata))
        return check_value(name, value, args[0], rules + own)
    if origin in (Union, UnionType):
        return None if value is None else check_value(name, value, args[args[0] is NoneType], rules)
    if origin is tuple:
        require(isinstance(value, tuple | list), name, value, "a tuple")
        if Ellipsis not in args and len(value) != len(args):
            raise UsageError(f"{name} must have {len(args)} values, got {len(value)}")
        kinds = [args[0]] * len(value) if Ellipsis in args else args
        return tuple(check_value(name, item, each, rules) for item, each in zip(value, kinds, strict=True))
    if origin is Literal:
        require(value in args, name, value, f"one of {', '.join(map(str, args))}")
        return value
    integer = kind is float and isinstance(value, int) and not isinstance(value, bool)
    right = integer or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool)))
    require(right, name, value, TYPE_NAMES[kind])
    require(all(rule.holds(value) for rule in rules), name, value, " and ".join(rule.words for rule in rules))
    return float(value) if integer else value


def rules_of(metadata: Any) -> tuple[Rule, ...]:
    """Return the rules of one part of an annotation; none for what is no range."""
    if isinstance(metadata, Rule):
        return (metadata,)
    if isinstance(metadata, Interval):
        parts = tuple(rule for bound in metadata for rule in rules_of(bound))
        if len(parts) == 1:
            return parts
        low = f"({metadata.gt}" if metadata.ge is None else f"[{metadata.ge}"
        high = f"{metadata.lt})" if metadata.le is None else f"{metadata.le}]"
        return (Rule(lambda value: all(part.holds(value) for part in parts), f"in {low}, {high}"),)
    if type(metadata) in _BOUNDS:
        name, words, holds = _BOUNDS[type(metadata)]
        bound = getattr(metadata, name)
        return (Rule(lambda value: bool(holds(value, bound)), f"{words} {bound}"),)
    if isinstance(metadata, BaseMetadata | GroupedMetadata):
        raise TypeError(f"{metadata} is not checked: use Gt, Ge, Lt, Le, Interval, MultipleOf or a Rule")
    return ()


_BOUNDS: Mapping[type, tuple[str, str, Callable[[Any, Any], Any]]] = {
    Gt: ("gt", "greater than", operator.gt),
    Ge: ("ge", "at least", operator.ge),
    Lt: ("lt", "less than", operator.lt),
    Le: ("le", "at most", operator.le),
    MultipleOf: ("multiple_of", "a multiple of", lambda value, factor: value % factor == 0),
}


def require(holds: bool, field: str, value: object, rule: str) -> None:
    """Raise ``UsageError("<field> must be <rule>, got <value>")`` unless ``holds``."""
    if not holds:
        raise UsageError(f"{field} must be {rule}, got {value!r}")
