"""One checker reads types and ranges where a field is declared."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Le, Len, Lt, MultipleOf
from hypothesis import given
from hypothesis import strategies as st

from anystep.core.errors import UsageError
from anystep.core.fields import (
    Checked,
    Finite,
    Fraction,
    NotEmpty,
    PositiveFloat,
    PowerOfTwo,
    check_fields,
    field_types,
)


@dataclass(frozen=True)
class Options(Checked, section="options"):
    """Every kind of field that a config can hold."""

    flag: bool = False
    count: Annotated[int, Ge(1)] = 1
    share: Annotated[float, Interval(ge=0, lt=1)] = 0.25
    name: Annotated[str, NotEmpty] = "x"
    choice: Literal["a", "b"] = "a"
    level: Literal[1, 2] = 1
    levels: Annotated[int, Gt(2), MultipleOf(3)] | None = None
    rate: Annotated[float | None, Lt(3), Le(2)] = None
    M: Annotated[int, PowerOfTwo] = 8
    mean: Annotated[float, Finite] = 0.0
    width: PositiveFloat = 1.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    weights: Annotated[tuple[float, ...], Gt(0)] | None = None
    names: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flag": 1}, "options.flag must be True or False, got 1"),
        ({"count": 0}, "options.count must be at least 1, got 0"),
        ({"count": True}, "options.count must be an integer, got True"),
        ({"count": 2.0}, "options.count must be an integer, got 2.0"),
        ({"count": None}, "options.count must be an integer, got None"),
        ({"share": 1}, r"options.share must be in \[0, 1\), got 1"),
        ({"share": -1e-300}, r"options.share must be in \[0, 1\), got -1e-300"),
        ({"share": math.nan}, r"options.share must be in \[0, 1\), got nan"),
        ({"share": True}, "options.share must be a number, got True"),
        ({"share": "0.5"}, "options.share must be a number, got '0.5'"),
        ({"name": " "}, "options.name must be text that is not empty, got ' '"),
        ({"name": Path("x")}, r"options.name must be text, got PosixPath\('x'\)"),
        ({"choice": "c"}, "options.choice must be one of a, b, got 'c'"),
        ({"level": 3}, "options.level must be one of 1, 2, got 3"),
        ({"levels": 4}, "options.levels must be greater than 2 and a multiple of 3, got 4"),
        ({"levels": 0}, "options.levels must be greater than 2 and a multiple of 3, got 0"),
        ({"rate": 2.5}, "options.rate must be less than 3 and at most 2, got 2.5"),
        ({"M": 12}, "options.M must be a power of two of at least 2, got 12"),
        ({"M": 1}, "options.M must be a power of two of at least 2, got 1"),
        ({"mean": -math.inf}, "options.mean must be finite, got -inf"),
        ({"width": math.inf}, "options.width must be greater than 0 and finite, got inf"),
        ({"betas": (0.9,)}, "options.betas must have 2 values, got 1"),
        ({"betas": (0.9, 1.5)}, r"options.betas must be in \[0, 1\], got 1.5"),
        ({"betas": 0.9}, "options.betas must be a tuple, got 0.9"),
        ({"weights": (1.0, 0.0)}, "options.weights must be greater than 0, got 0.0"),
        ({"names": "ab"}, "options.names must be a tuple, got 'ab'"),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_its_rule(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        Options(**fields)


def test_none_passes_where_it_is_declared_and_lists_and_integers_take_the_declared_form() -> None:
    made = Options(levels=None, weights=[1, 2.5], betas=[0, 1], share=0)  # type: ignore[arg-type]
    assert made == Options(weights=(1.0, 2.5), betas=(0.0, 1.0), share=0.0)
    assert all(type(value) is float for value in (*(made.weights or ()), *made.betas, made.share))
    assert hash(made)  # a list would not have one


@given(st.floats(), st.floats(0, 1, exclude_max=True))
def test_a_range_holds_exactly_for_the_numbers_in_it(any_number: float, inside: float) -> None:
    assert Options(share=inside).share == inside
    if 0 <= any_number < 1:
        assert Options(share=any_number).share == any_number
    else:
        with pytest.raises(UsageError):
            Options(share=any_number)


def test_rules_between_fields_see_fields_that_are_right_already() -> None:
    seen = []

    @dataclass(frozen=True)
    class Two(Checked):
        low: Fraction = 0.0
        high: Fraction = 1.0

        def check_combinations(self) -> None:
            seen.append((self.low, self.high))
            if self.low > self.high:
                raise UsageError("low above high")

    with pytest.raises(UsageError, match=r"^high must be in \[0, 1\], got 2$"):
        Two(0, 2)
    assert not seen
    with pytest.raises(UsageError, match="low above high"):
        Two(0.5, 0.25)
    assert Two(0, 1) == Two(0.0, 1.0) and seen == [(0.5, 0.25), (0.0, 1.0), (0.0, 1.0)]


@pytest.mark.parametrize(
    "kind", [Path, list[int], dict[str, int], int | str, int | str | None, Any, object, tuple[Path, ...], "Path | None"]
)
def test_a_type_that_no_config_can_hold_is_rejected(kind: Any) -> None:
    class Other:
        place: Any = None

    Other.__annotations__["place"] = kind
    made = dataclass(frozen=True)(Other)()
    with pytest.raises(UsageError, match=r"^Other.place is declared as .*a field is bool, int, float"):
        check_fields(made)


def test_a_type_that_cannot_be_read_is_named() -> None:
    class Other:
        place: "Nowhere" = None  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(UsageError, match="Other: the type of a field cannot be read: name 'Nowhere' is not defined"):
        field_types(dataclass(Other))


def test_a_range_that_is_not_checked_is_a_fault_of_its_author() -> None:
    """Better than a range that everyone believes in and nobody reads."""

    @dataclass(frozen=True)
    class Wrong(Checked):
        name: Annotated[str, Len(1, 3)] = "x"

    with pytest.raises(TypeError, match="is not checked: use Gt, Ge"):
        Wrong()


def test_metadata_of_others_is_no_range() -> None:
    @dataclass(frozen=True)
    class Other(Checked):
        name: Annotated[int, "a remark", {"not": "hashable"}, Ge(1)] = 1

    assert Other(3).name == 3
    with pytest.raises(UsageError, match=r"^name must be at least 1, got 0$"):
        Other(0)
