"""Dataclasses, named tuples, protocols and generic classes that cost a tenth of the standard library's to define.

`dataclasses` takes five milliseconds to import and compiles six methods of each class whenever a module is imported,
`typing.NamedTuple` a constructor: a fifth of a millisecond per class, and a verb needs a hundred classes. Here all
dataclasses share the same six methods, which look at `_values`, the fields of their class; and a named tuple gets the
standard constructor once many of its class are made. Type checkers see the standard names. So do the functions of the
standard library, which take these classes for dataclasses: what they look for is made when they do (`_Standard`).
`typing` itself takes two milliseconds to import, so light verbs do without it: modules set `TYPE_CHECKING = False`
themselves, which type checkers read as True.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from operator import itemgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import replace as replace
    from typing import Any, Literal, NoReturn, TypeVar
    from typing import Generic as Generic
    from typing import NamedTuple as NamedTuple
    from typing import Protocol as Protocol
    from typing import runtime_checkable as runtime_checkable

    T = TypeVar("T")

_NOTHING = object()
"""The default of a field that has none."""


def values_of(value: Any) -> dict[str, Any]:
    """The fields of one of our dataclasses, by name."""
    return {name: getattr(value, name) for name, _, _ in type(value)._values}


def compared(value: Any) -> dict[str, Any]:
    """The fields that its equality looks at, by name."""
    return {name: getattr(value, name) for name, field, _ in type(value)._values if field.compare}


def is_value(value: object) -> bool:
    """Whether it is made by one of our dataclasses."""
    return hasattr(type(value), "_values")


class _Field:
    """The options of one field of a class: `dataclasses.field`, as far as this project uses it."""

    __slots__ = ("compare", "default", "default_factory", "repr")

    def __init__(
        self,
        *,
        default: Any = _NOTHING,
        default_factory: Callable[[], Any] | None = None,
        compare: bool = True,
        repr: bool = True,  # noqa: A002  # the standard name
    ) -> None:
        self.default, self.default_factory, self.compare, self.repr = default, default_factory, compare, repr

    def standard(self) -> Any:
        """The same in the words of the standard library."""
        import dataclasses

        default = {} if self.default is _NOTHING else {"default": self.default}
        factory = {} if self.default_factory is None else {"default_factory": self.default_factory}
        options: dict[str, Any] = {**default, **factory, "compare": self.compare, "repr": self.repr}
        return dataclasses.field(**options)


def _dataclass(*, slots: Literal[True], frozen: bool = False, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """`dataclasses.dataclass`, as far as this project uses it: no class of them has another as its base."""

    def decorated(cls: type[T]) -> type[T]:
        said = {name: cls.__dict__.get(name, _NOTHING) for name in cls.__annotations__}
        assert not any(type(one).__module__ == "dataclasses" for one in said.values()), f"{cls}: field is not of values"
        fields = {name: one if isinstance(one, _Field) else _Field(default=one) for name, one in said.items()}
        annotations, options = cls.__annotations__, {"frozen": frozen, "kw_only": kw_only}
        own = {name: value for name, value in cls.__dict__.items() if name not in (*fields, "__dict__", "__weakref__")}
        made: Any = type(
            cls.__name__,
            cls.__bases__,
            {
                **own,
                **_METHODS,
                **(_FROZEN if frozen else {"__hash__": None}),
                "__slots__": tuple(fields),
                "__qualname__": cls.__qualname__,
                "__match_args__": () if kw_only else tuple(fields),
                "__dataclass_fields__": _Standard(annotations, fields, options),
                "__dataclass_params__": _Standard(annotations, fields, options),
            },
        )
        # past a frozen class's own __setattr__, only the descriptors of its slots set what is in them
        made._values = tuple((name, field, made.__dict__[name].__set__) for name, field in fields.items())
        result: type[T] = made
        return result

    return decorated


class _Standard:
    """What the standard library keeps in attributes of each dataclass, made when one of them is asked for."""

    def __init__(self, annotations: dict[str, Any], fields: dict[str, _Field], options: dict[str, bool]) -> None:
        self._annotations, self._fields, self._options = annotations, fields, options

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name

    def __get__(self, instance: object, owner: type) -> Any:
        import dataclasses

        body = {name: field.standard() for name, field in self._fields.items()}
        about = {"__doc__": owner.__doc__, "__module__": owner.__module__, "__annotations__": self._annotations}
        like = type(owner.__name__, (), {**about, **body})
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
    for name, field, set_slot in cls._values:
        if name in given:
            set_slot(self, given.pop(name))
        elif field.default_factory is not None:
            set_slot(self, field.default_factory())
        elif field.default is not _NOTHING:
            set_slot(self, field.default)
        else:
            raise TypeError(f"{cls.__name__}() is missing argument {name!r}")
    if given:
        raise TypeError(f"{cls.__name__}() got an unexpected argument {next(iter(given))!r}")
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name, field, _ in type(self)._values if field.compare)


def _eq(self: Any, other: object) -> bool:
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _repr(self: Any) -> str:
    shown = (name for name, field, _ in type(self)._values if field.repr)
    return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


def _refuse(self: Any, name: str, value: object = None) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot change field {name!r} of {type(self).__name__}")


def _reduce(self: Any) -> tuple[Any, ...]:
    """Copying and pickling go through the fields, as nothing can be set afterwards."""
    return _rebuilt, (type(self), values_of(self))


def _rebuilt(cls: type[T], values: dict[str, Any]) -> T:
    return cls(**values)


def _replace(value: T, /, **changes: Any) -> T:
    """`dataclasses.replace`."""
    return type(value)(**values_of(value) | changes)


_METHODS = {"__init__": _init, "__eq__": _eq, "__repr__": _repr}
_FROZEN = {"__hash__": _hash, "__setattr__": _refuse, "__delattr__": _refuse, "__reduce__": _reduce}


class _Protocol:
    """The base of Protocol classes, which only type checkers use."""

    def __class_getitem__(cls, item: object) -> type[_Protocol]:
        return cls


class _Shape(type):
    """The class of protocols that `isinstance` can be asked about: it looks for their methods only."""

    def __instancecheck__(cls, value: object) -> bool:
        return all(hasattr(value, name) for name in vars(cls) if not name.startswith("_"))


def _runtime_checkable(cls: type[T]) -> type[T]:
    """`typing.runtime_checkable`."""
    body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    made: Any = _Shape(cls.__name__, cls.__bases__, body)
    return made  # type: ignore[no-any-return]


class _Generic:
    """The base of generic classes; only type checkers look at the type in brackets."""

    def __class_getitem__(cls, item: object) -> type[_Generic]:
        return cls


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
                "_made": [0],
                **_OF_TUPLES,
                **namespace,
                **attributes,
            },
        )


def _new(cls: Any, /, *args: Any, **given: Any) -> Any:
    """Make one. Compiling the standard constructor takes as long as making some of them without it."""
    fields, made = cls._fields, cls._made
    made[0] += 1  # in a list: setting an attribute of a class makes the interpreter forget what it found out about it
    if made[0] < _MANY:
        if not given and len(args) == len(fields):
            return tuple.__new__(cls, args)
        values = {**cls._field_defaults, **dict(zip(fields, args, strict=False)), **given}
        is_right = len(args) <= len(fields) and (not args or given.keys().isdisjoint(fields[: len(args)]))
        if is_right and len(values) == len(fields):
            try:
                return tuple.__new__(cls, [values[name] for name in fields])
            except KeyError:  # there is one of another name
                pass
    owner = next(base for base in cls.__mro__ if "_fields" in base.__dict__)
    namedtuple: Any = collections.namedtuple  # type checkers want to see the fields
    standard = namedtuple(owner.__name__, fields, defaults=owner._field_defaults.values())
    for name in fields:
        setattr(owner, name, standard.__dict__[name])  # quicker than ours
    owner.__new__ = standard.__new__
    return standard.__new__(cls, *args, **given)  # which says what is wrong with these


_MANY = 16
"""So many of a class, and the rest are made by the standard constructor."""


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
    dataclass = _dataclass
    field = _Field
    replace = _replace
    Protocol = _Protocol
    runtime_checkable = _runtime_checkable
    Generic = _Generic
    NamedTuple = type.__new__(_Named, "NamedTuple", (), {})
