"""Dataclasses that cost a tenth of the standard library's to define.

`dataclasses` compiles six methods of each class whenever a module is imported: half a millisecond per class, and a verb
needs fifty classes. Here all classes share the same six methods. What is made is a dataclass in every other respect:
`fields`, `replace`, `field(compare=False)` and `match` work, and type checkers see the standard decorator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass

T = TypeVar("T")


def _define(*, slots: Literal[True], frozen: bool = False, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """`dataclasses.dataclass`, as far as this project uses it."""
    methods = _METHODS | (_FROZEN if frozen else {"__hash__": None})

    def decorated(cls: type[T]) -> type[T]:
        for name, method in methods.items():
            setattr(cls, name, method)
        return dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(cls)

    return decorated


def _init(self: Any, /, *args: Any, **given: Any) -> None:
    cls = type(self)
    if args:
        if len(args) > len(cls.__match_args__):
            raise TypeError(f"{cls.__name__}() takes {len(cls.__match_args__)} positional arguments, got {len(args)}")
        for name, value in zip(cls.__match_args__, args, strict=False):
            if name in given:
                raise TypeError(f"{cls.__name__}() got two values of argument {name!r}")
            given[name] = value
    for name, field in cls.__dataclass_fields__.items():
        object.__setattr__(self, name, given.pop(name) if name in given else _default(cls, field))
    if given:
        raise TypeError(f"{cls.__name__}() got an unexpected argument {next(iter(given))!r}")
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _default(cls: type, field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    raise TypeError(f"{cls.__name__}() is missing argument {field.name!r}")


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name, field in type(self).__dataclass_fields__.items() if field.compare)


def _eq(self: Any, other: object) -> bool:
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _repr(self: Any) -> str:
    shown = (name for name, field in type(self).__dataclass_fields__.items() if field.repr)
    return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


def _refuse(self: Any, name: str, value: object = None) -> NoReturn:
    raise FrozenInstanceError(f"cannot change field {name!r} of {type(self).__name__}")


def _reduce(self: Any) -> tuple[Any, ...]:
    """Copying and pickling go through the fields, as nothing can be set afterwards."""
    return _rebuilt, (type(self), {name: getattr(self, name) for name in type(self).__dataclass_fields__})


def _rebuilt(cls: type[T], values: dict[str, Any]) -> T:
    return cls(**values)


_METHODS = {"__init__": _init, "__eq__": _eq, "__repr__": _repr}
_FROZEN = {"__hash__": _hash, "__setattr__": _refuse, "__delattr__": _refuse, "__reduce__": _reduce}

if not TYPE_CHECKING:
    dataclass = _define
