"""dockerfile-parse, imported without `logging`, which takes longer to import than a Containerfile to be parsed.

dockerfile-parse asks `logging` for a logger when it is imported, and logs only what fails to be read or written. While
it is imported, a module stands in for `logging` that hands out loggers; whatever else is asked of it or of them comes
from the real module, which is imported then. So nothing that is logged is lost.
"""

from __future__ import annotations

import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parser_class() -> Any:
    """The class DockerfileParser."""
    standing_in = "logging" not in sys.modules
    if standing_in:
        sys.modules["logging"] = _Logging("logging")
    try:
        from dockerfile_parse import DockerfileParser
    finally:
        if standing_in:
            _end_standing_in()
    return DockerfileParser


class _Logging(ModuleType):
    """`logging`, as long as only loggers are asked for."""

    def getLogger(self, name: str | None = None) -> _Logger:  # the standard name
        return _Logger(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(_real(), name)


class _Logger:
    """A logger that is made by `logging` once something is done with it."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(_real().getLogger(self._name), name)


def _real() -> ModuleType:
    _end_standing_in()
    import logging

    return logging


def _end_standing_in() -> None:
    if isinstance(sys.modules.get("logging"), _Logging):
        del sys.modules["logging"]
