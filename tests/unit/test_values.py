"""Our dataclasses behave as the standard library's."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from builda.values import NamedTuple, Protocol, dataclass, field, replace, runtime_checkable, values_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """By keyword only."""

    a: int
    b: str = "b"
    c: tuple[int, ...] = ()
    d: dict[str, int] = field(default_factory=dict, compare=False)
    secret: str = field(default="s", repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """What `Named` is to be like."""

    a: int
    b: str = "b"
    c: tuple[int, ...] = ()
    d: dict[str, int] = dataclasses.field(default_factory=dict, compare=False)
    secret: str = dataclasses.field(default="s", repr=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """By position."""

    x: int
    y: int = 2


@dataclass(frozen=True, slots=True)
class Other:
    """The same fields as `Pair`, another meaning."""

    x: int
    y: int = 2


@dataclass(slots=True)
class Mutable:
    """May change."""

    x: int
    items: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Looks at itself."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(self.n)


def test_values_have_defaults_of_their_own() -> None:
    made = Named(a=1)
    assert (made.a, made.b, made.c, made.d) == (1, "b", (), {})
    assert Named(a=1).d is not made.d


def test_equal_and_hash_look_at_compared_fields_of_one_class() -> None:
    assert Named(a=1, d={"x": 1}) == Named(a=1)
    assert hash(Named(a=1)) == hash(Named(a=1))
    assert Named(a=1) != Named(a=2)
    others: tuple[object, ...] = (Other(1), (1, 2))
    assert all(Pair(1) != other for other in others)
    with pytest.raises(TypeError):
        hash(Mutable(1))


def test_the_text_is_the_standard_one() -> None:
    assert repr(Named(a=1)) == repr(Standard(a=1)).replace("Standard", "Named")


def test_nothing_changes_a_frozen_value() -> None:
    value: Any = Pair(1)
    with pytest.raises(FrozenInstanceError):
        value.x = 3
    with pytest.raises(FrozenInstanceError):
        del value.x
    with pytest.raises((FrozenInstanceError, AttributeError)):
        value.z = 3
    assert not hasattr(value, "__dict__")


def test_a_value_is_changed_by_making_another() -> None:
    assert replace(Pair(1), y=5) == Pair(1, 5)
    anything: Any = replace
    with pytest.raises(TypeError, match="unexpected argument 'z'"):
        anything(Pair(1), z=5)
    assert values_of(Pair(1)) == {"x": 1, "y": 2}


def test_the_rest_of_dataclasses_works() -> None:
    assert dataclasses.replace(Pair(1), y=5) == Pair(1, 5)
    kinds = [(one.name, one.compare, one.repr, one.kw_only) for one in dataclasses.fields(Named)]
    assert kinds == [(one.name, one.compare, one.repr, one.kw_only) for one in dataclasses.fields(Standard)]
    assert dataclasses.fields(Named)[3].default_factory is dict
    assert dataclasses.is_dataclass(Pair(1))
    assert dataclasses.asdict(Pair(1)) == {"x": 1, "y": 2}
    match Pair(3, 4):
        case Pair(x, y):
            assert (x, y) == (3, 4)


def test_values_are_copied_and_pickled() -> None:
    assert copy.deepcopy(Named(a=1, d={"x": 1})).d == {"x": 1}
    assert pickle.loads(pickle.dumps(Pair(1))) == Pair(1)


def test_a_mutable_one_changes() -> None:
    value = Mutable(1)
    value.x = 2
    value.items.append(3)
    assert value == Mutable(2, [3])
    assert Mutable(1).items == []


def test_a_value_may_check_itself() -> None:
    assert Checked(n=1).n == 1
    with pytest.raises(ValueError, match="-1"):
        Checked(n=-1)


@pytest.mark.parametrize(
    ("args", "given"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})],
    ids=["none", "many", "twice", "unknown"],
)
def test_wrong_arguments_are_refused(args: tuple[int, ...], given: dict[str, int]) -> None:
    with pytest.raises(TypeError, match=r"Pair\(\)"):
        Pair(*args, **given)


def test_keyword_only_means_it() -> None:
    made: Any = Named
    with pytest.raises(TypeError, match="positional"):
        made(1)


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: int = 2

    @property
    def total(self) -> int:
        """Both."""
        return self.x + self.y

    @classmethod
    def parse(cls, text: str) -> Point:
        """Of `X,Y`."""
        return cls(*map(int, text.split(",")))


class Where(NamedTuple):
    """Another, of which none was made yet."""

    place: str


def test_named_tuples_behave_as_the_standard_ones() -> None:
    made = Point(1)
    assert (made, made.x, made.y, made.total) == ((1, 2), 1, 2, 3)
    assert Point(y=5, x=4) == Point.parse("4,5") == Point._make([4, 5]) == made._replace(x=4, y=5)
    assert repr(made) == "Point(x=1, y=2)"
    assert made._asdict() == {"x": 1, "y": 2}
    assert Point._fields == ("x", "y")
    assert copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made
    assert isinstance(made, tuple)
    match made:
        case Point(x, y):
            assert (x, y) == (1, 2)


@pytest.mark.parametrize(("args", "given"), [((), {}), ((1, 2), {}), ((), {"z": 1})], ids=["none", "many", "unknown"])
def test_the_first_named_tuple_of_a_class_is_checked_too(args: tuple[int, ...], given: dict[str, int]) -> None:
    kind: Any = Where
    with pytest.raises(TypeError, match="Where"):
        kind(*args, **given)
    assert Where("here").place == "here"


def test_the_many_of_a_class_are_made_as_the_first() -> None:
    made = [Point(number) for number in range(40)]
    assert made == [(number, 2) for number in range(40)]
    assert {type(one) for one in made} == {Point}
    assert [one.total for one in made[::39]] == [2, 41]
    kind: Any = Point
    for args, given in (((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})):
        with pytest.raises(TypeError, match="Point"):
            kind(*args, **given)


def test_named_tuples_are_unpacked_and_never_changed() -> None:
    made: Any = Point(3, 4)
    x, y = made
    assert (x, y) == (3, 4)
    with pytest.raises(AttributeError):
        made.x = 1
    with pytest.raises(AttributeError):
        made.z = 1


@runtime_checkable
class Counts(Protocol):
    """Two methods that a value may have."""

    def count(self, value: object, /) -> int:
        """How often."""

    def index(self, value: object, /) -> int:
        """Where first."""


def test_a_value_has_the_shape_of_a_protocol_if_it_has_all_of_its_methods() -> None:
    assert isinstance([1], Counts)
    assert isinstance("text", Counts)
    assert not isinstance({1}, Counts)
    assert not isinstance(object(), Counts)
