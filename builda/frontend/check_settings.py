"""Which build checks are wanted: the `# check=` directive, or the build argument that takes its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from builda.errors import BuildaError, ContainerfileError, InvalidValue
from builda.frontend.parse import Parsed
from builda.values import NamedTuple

ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"
"""The build argument that replaces the directive; the name is BuildKit's."""
EXPERIMENTAL = frozenset({"invaliddefinitiondescription"})
"""Checks that run only where `experimental=NAME` or `experimental=all` asks for them."""

_COMMENT = r"(?i)check\s*=\s*(\S+)"
_BOOLEANS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


class Settings(NamedTuple):
    """Names in lower case; "all" stands for every one."""

    skip: frozenset[str] = frozenset()
    error: bool = False
    experimental: frozenset[str] = frozenset()

    def wants(self, check: str) -> bool:
        """Whether findings of this check are reported."""
        name = check.lower()
        asked = name not in EXPERIMENTAL or bool({name, "all"} & self.experimental)
        return asked and not {name, "all"} & self.skip

    def with_comments(self, comments: tuple[str, ...]) -> Settings:
        """These settings plus those of the first `check=` among the comments above an instruction, for it alone."""
        for comment in comments:
            match = re.match(_COMMENT, comment)
            if match is None:
                continue
            try:
                own = _settings(match[1], InvalidValue)
            except BuildaError:  # a comment after all
                return self
            return self._replace(skip=self.skip | own.skip, experimental=self.experimental | own.experimental)
        return self


def settings_of(parsed: Parsed, build_args: Mapping[str, str]) -> Settings:
    """The settings of a build; an error if malformed, with its place if they come from the directive."""
    if ARGUMENT in build_args:
        return _settings(build_args[ARGUMENT], lambda message: InvalidValue(f"{message} in {ARGUMENT}"))
    written = next(((value, at) for key, value, at in parsed.directives if key == "check"), None)
    if written is None:
        return Settings()
    value, at = written
    return _settings(value, lambda message: ContainerfileError(message, file=at.file, line=at.line))


def _settings(text: str, refused: Callable[[str], BuildaError]) -> Settings:
    found = Settings()
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, _, value = part.partition("=")
        match name.strip().lower():
            case "skip":
                found = found._replace(skip=_names(value))
            case "experimental":
                found = found._replace(experimental=_names(value))
            case "error" if value.strip().lower() in _BOOLEANS:
                found = found._replace(error=_BOOLEANS[value.strip().lower()])
            case "error":
                raise refused(f"not true or false: error={value.strip()}")
            case other:
                raise refused(f"unknown setting of the build checks: {other}")
    return found


def _names(text: str) -> frozenset[str]:
    return frozenset(item.strip().lower() for item in text.split(",") if item.strip())
