"""Dataclasses and named tuples that cost a tenth of the standard library's to define.

`dataclasses` compiles six methods of each class whenever a module is imported, `typing.NamedTuple` a constructor and
each annotation: a fifth of a millisecond per class, and a verb needs a hundred classes. Here all dataclasses share the
same six methods, and what the standard library's functions ask a class for is made when they do. What is made is a
dataclass in every other respect: `fields`, `replace`, `field(compare=False)` and `match` work, and type checkers see
the standard decorator. A named tuple gets the standard constructor when the first one is made.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import replace as replace
    from typing import NamedTuple as NamedTuple

T = TypeVar("T")
_NOTHING = object()
"""The default of a field that has none."""


def compared(value: Any) -> dict[str, Any]:
    """The fields of one of our dataclasses that its equality looks at, by name."""
    return {name: getattr(value, name) for name, _, _, _, counts, _ in type(value)._values if counts}


def is_value(value: object) -> bool:
    """Whether it is made by one of our dataclasses."""
    return hasattr(type(value), "_values")


def _define(*, slots: Literal[True], frozen: bool = False, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """`dataclasses.dataclass`, as far as this project uses it: no class of them has another as its base."""

    def decorated(cls: type[T]) -> type[T]:
        annotations = dict(cls.__annotations__)
        said = {name: cls.__dict__[name] for name in annotations if name in cls.__dict__}
        own = {name: value for name, value in cls.__dict__.items() if name not in said and name not in _REMADE}
        standard = {"frozen": frozen, "kw_only": kw_only}
        made: Any = type(
            cls.__name__,
            cls.__bases__,
            {
                **own,
                **_METHODS,
                **(_FROZEN if frozen else {"__hash__": None}),
                "__slots__": tuple(annotations),
                "__qualname__": cls.__qualname__,
                "__match_args__": () if kw_only else tuple(annotations),
                "__dataclass_fields__": _Standard("__dataclass_fields__", annotations, said, standard),
                "__dataclass_params__": _Standard("__dataclass_params__", annotations, said, standard),
            },
        )
        made._values = tuple(_value(made, name, said.get(name, _NOTHING)) for name in annotations)
        result: type[T] = made
        return result

    return decorated


_REMADE = frozenset({"__dict__", "__weakref__"})


def _value(
    cls: type, name: str, said: Any
) -> tuple[str, Callable[[Any, Any], None], Any, Callable[[], Any] | None, bool, bool]:
    """A field: its name, what sets it, its default or _NOTHING, what makes one, whether it is compared, and shown."""
    setter = cls.__dict__[name].__set__
    standard = sys.modules.get("dataclasses")  # which has made `said`, if that is a field
    if standard is None or not isinstance(said, standard.Field):
        return name, setter, said, None, True, True
    default = _NOTHING if said.default is standard.MISSING else said.default
    factory = None if said.default_factory is standard.MISSING else said.default_factory
    return name, setter, default, factory, said.compare, said.repr


class _Standard:
    """What the standard library keeps in an attribute of each dataclass, made when it is asked for."""

    def __init__(
        self, attribute: str, annotations: dict[str, Any], said: dict[str, Any], options: dict[str, bool]
    ) -> None:
        self._attribute = attribute
        # with a docstring, as dataclasses would write one from a signature
        self._namespace = {"__doc__": "-", "__annotations__": annotations, **said}
        self._options = options

    def __get__(self, instance: object, owner: type) -> Any:
        import dataclasses

        like = type(owner.__name__, (), {**self._namespace, "__module__": owner.__module__})
        standard: Any = dataclasses.dataclass(init=False, repr=False, eq=False, **self._options)(like)
        made = getattr(standard, self._attribute)
        setattr(owner, self._attribute, made)
        return made


def _init(self: Any, /, *args: Any, **given: Any) -> None:
    cls = type(self)
    if args:
        if len(args) > len(cls.__match_args__):
            raise TypeError(f"{cls.__name__}() takes {len(cls.__match_args__)} positional arguments, got {len(args)}")
        for name, value in zip(cls.__match_args__, args, strict=False):
            if name in given:
                raise TypeError(f"{cls.__name__}() got two values of argument {name!r}")
            given[name] = value
    for name, setter, default, factory, _, _ in cls._values:
        if name in given:
            setter(self, given.pop(name))
        elif factory is not None:
            setter(self, factory())
        elif default is not _NOTHING:
            setter(self, default)
        else:
            raise TypeError(f"{cls.__name__}() is missing argument {name!r}")
    if given:
        raise TypeError(f"{cls.__name__}() got an unexpected argument {next(iter(given))!r}")
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name, _, _, _, counts, _ in type(self)._values if counts)


def _eq(self: Any, other: object) -> bool:
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _repr(self: Any) -> str:
    shown = (name for name, _, _, _, _, said in type(self)._values if said)
    return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


def _refuse(self: Any, name: str, value: object = None) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot change field {name!r} of {type(self).__name__}")


def _reduce(self: Any) -> tuple[Any, ...]:
    """Copying and pickling go through the fields, as nothing can be set afterwards."""
    return _rebuilt, (type(self), {name: getattr(self, name) for name, *_ in type(self)._values})


def _rebuilt(cls: type[T], values: dict[str, Any]) -> T:
    return cls(**values)


def _replace(value: T, /, **changes: Any) -> T:
    """`dataclasses.replace`."""
    values = getattr(type(value), "_values", None)
    if values is None:
        import dataclasses

        return dataclasses.replace(value, **changes)  # type: ignore[type-var]
    return type(value)(**{name: getattr(value, name) for name, *_ in values} | changes)


_METHODS = {"__init__": _init, "__eq__": _eq, "__repr__": _repr}
_FROZEN = {"__hash__": _hash, "__setattr__": _refuse, "__delattr__": _refuse, "__reduce__": _reduce}


class _Named(type):
    """Makes a subclass of NamedTuple a plain subclass of tuple."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        fields = namespace.get("__annotations__", {})
        defaults = {field: namespace[field] for field in fields if field in namespace}
        attributes = {field: property(itemgetter(index)) for index, field in enumerate(fields)}
        return type(
            name,
            (tuple,),
            {
                "__slots__": (),
                "__match_args__": tuple(fields),
                "_fields": tuple(fields),
                "_field_defaults": defaults,
                **_OF_TUPLES,
                **namespace,
                **attributes,
            },
        )


def _new(cls: Any, /, *args: Any, **given: Any) -> Any:
    """The first of a class gives it the constructor that the others are made by, and quicker attributes."""
    owner = next(base for base in cls.__mro__ if "_fields" in base.__dict__)
    namedtuple: Any = collections.namedtuple  # type checkers want to see the fields
    standard = namedtuple(owner.__name__, owner._fields, defaults=owner._field_defaults.values())
    for name in owner._fields:
        setattr(owner, name, standard.__dict__[name])
    owner.__new__ = standard.__new__
    return standard.__new__(cls, *args, **given)


def _make(cls: Any, values: Iterable[Any]) -> Any:
    return cls(*values)


def _tuple_replace(self: Any, /, **changes: Any) -> Any:
    return type(self)(**{**self._asdict(), **changes})


def _as_tuple(self: Any) -> tuple[Any, ...]:
    return tuple(self)


def _as_dict(self: Any) -> dict[str, Any]:
    return dict(zip(self._fields, self, strict=True))


def _tuple_repr(self: Any) -> str:
    said = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
    return f"{type(self).__name__}({said})"


_OF_TUPLES = {
    "__new__": _new,
    "__repr__": _tuple_repr,
    "__getnewargs__": _as_tuple,
    "_make": classmethod(_make),
    "_replace": _tuple_replace,
    "_asdict": _as_dict,
}

if not TYPE_CHECKING:
    dataclass = _define
    replace = _replace
    NamedTuple = type.__new__(_Named, "NamedTuple", (), {})
