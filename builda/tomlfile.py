"""TOML files that the user or a distribution wrote: registries.conf, containers.conf, storage.conf."""

from __future__ import annotations

import os

from builda.errors import BuildaError, InvalidValue, NotFound
from builda.inputfile import read_input

TYPE_CHECKING = False  # typing takes two milliseconds, which a push of what is there already need not pay
if TYPE_CHECKING:
    from typing import Any


def read_toml(file: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """The tables of a TOML file; `what` it is goes into errors, as in "registries.conf".

    NotFound without the file; InvalidValue for what is no UTF-8 or no TOML; BuildaError as the kernel refuses.
    """
    text = read_text(file, what)
    value = _plain(text)
    return _parsed(text, file) if value is None else value


def read_text(file: str | os.PathLike[str], what: str) -> str:
    """The text of a configuration file; the errors of `read_toml`."""
    try:
        return read_input(file, what).decode()
    except FileNotFoundError as error:
        raise NotFound(f"no such {what}: {os.fspath(file)}") from error
    except UnicodeDecodeError as error:
        raise InvalidValue(f"not UTF-8: {os.fspath(file)}") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BuildaError(f"{what} cannot be read, {reason}: {os.fspath(file)}") from error


def _plain(text: str) -> dict[str, Any] | None:
    """The value of a text of comments and tables of `"key" = "value"`, and None for any other text.

    The files that distributions install look like that, and importing tomllib takes longer than reading them.
    """
    if any((c < " " and c not in "\t\n") or c == "\x7f" for c in set(text)):
        return None
    tables: dict[str, dict[str, str]] = {}
    table: dict[str, str] = {}
    for line in text.split("\n"):
        line = line.strip(" \t")
        if not line or line[0] == "#":
            continue
        if line[0] == "[":
            name = line[1:-1]
            if name in tables or line[-1] != "]" or not (name.isascii() and name.isidentifier()):
                return None
            table = tables[name] = {}
            continue
        pair = _pair(line)
        if pair is None or not tables or pair[0] in table:
            return None
        table[pair[0]] = pair[1]
    return tables


def _pair(line: str) -> tuple[str, str] | None:
    """Key and value of a line `"key" = "value"`, which may end in a comment; None for any other line."""
    parts = line.split('"')
    if len(parts) != 5 or "\\" in line:
        return None
    before, key, between, value, after = (part if index % 2 else part.strip(" \t") for index, part in enumerate(parts))
    return (key, value) if not before and between == "=" and after[:1] in ("", "#") else None


def _parsed(text: str, file: str | os.PathLike[str]) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidValue(f"not valid TOML ({error}): {os.fspath(file)}") from error
