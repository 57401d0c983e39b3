"""Files of variables beside compose files, `.env` and those of `env_file`: Compose's "Env file syntax"."""

from __future__ import annotations

import re
from collections.abc import Mapping

from builda.bake.documents import Place, fault
from builda.bake.interpolation import interpolate

_BETWEEN = re.compile(r"(?:\s|#[^\n]*(?:\n|\Z))+")
_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][\w.-]*)[ \t]*(?:([=:])[ \t]*|(?=[\r\n]|\Z))")
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_BEHIND = re.compile(r"[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)")
_PLAIN = re.compile(r"[^\n]*")
_COMMENT = re.compile(r"[ \t]+#.*")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "$": "$$", '"': '"', "\\": "\\"}


def variables(text: str, file: str, environ: Mapping[str, str], unset: set[str]) -> dict[str, str]:
    """The variables of a file; a name alone takes the value that it has in `environ`.

    Values without quotes or in double ones may name variables: those of `environ`, then those above. Names of others
    go into `unset` and stand for nothing. InvalidValue with the line for what cannot be read.
    """
    found: dict[str, str] = {}
    at = 0
    while True:
        between = _BETWEEN.match(text, at)
        at = at if between is None else between.end()
        if at == len(text):
            return found
        place = Place(file, text.count("\n", 0, at) + 1)
        name = _NAME.match(text, at)
        if name is None:
            raise fault(place, "line is no NAME=VALUE")
        at = name.end()
        if name[2] is None:
            if name[1] in environ:
                found[name[1]] = environ[name[1]]
            continue
        value, at = _value(text, at, place)
        found[name[1]] = interpolate(value, place, {**found, **environ}, unset)


def raw_variables(text: str) -> dict[str, str]:
    """The variables of a file of `format: raw`, whose values are what stands behind the `=`."""
    lines = (line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {name.strip(): value for name, equals, value in lines if equals}


def _value(text: str, at: int, place: Place) -> tuple[str, int]:
    """A value as `interpolate` reads it, and where it ends."""
    if text[at : at + 1] not in ("'", '"'):
        plain = _PLAIN.match(text, at)
        assert plain is not None, "it matches nothing, too"
        return _COMMENT.sub("", plain[0]).strip(), plain.end()
    quoted = _QUOTED.match(text, at)
    if quoted is None:
        raise fault(place, "quote is not closed")
    behind = _BEHIND.match(text, quoted.end())
    if behind is None:
        raise fault(place, "there is text behind a value in quotes")
    if quoted[1] is not None:
        return quoted[1].replace("\\'", "'").replace("$", "$$"), behind.end()
    value = re.sub(r"\\(.)", lambda one: _ESCAPED.get(one[1], one[0]), quoted[2], flags=re.DOTALL)
    return value, behind.end()
