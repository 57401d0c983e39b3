"""The text of `--volume`: source, target and options. What is wrong with it is found before anything runs."""

from __future__ import annotations

import os

from builda.errors import InvalidValue, NotFound, Unsupported
from builda.plan import PROPAGATIONS

_PLAIN_OPTIONS = frozenset("ro rw nosuid suid nodev dev noexec exec noatime relatime nodiratime".split())
_LABELS = frozenset({"z", "Z"})  # SELinux: nothing to do on a kernel without it, and refused labels elsewhere


def parse_volume(text: str) -> tuple[str, str, tuple[str, ...]]:
    """Source, target and option words of `host:container[:options]`; NotFound if there is no such source."""
    source, _, rest = text.partition(":")
    target, _, words = rest.partition(":")
    if not target.startswith("/"):
        raise InvalidValue(f"a volume is host:container[:options]: {text}", hint="both paths are absolute")
    if not source.startswith("/"):
        raise InvalidValue(f"path of the volume on the host is not absolute: {text}")
    if not os.path.exists(source):
        raise NotFound(f"no such file or directory on the host: {source}")
    options = tuple(word for word in words.split(",") if word)
    check_words(options, text)
    return source, target, options


def check_words(words: tuple[str, ...], text: str) -> None:
    """Refuse an option that no volume or bind has; `text` is what the error names."""
    known = _PLAIN_OPTIONS | PROPAGATIONS | _LABELS | {"O", "U", "bind", "rbind", "nocopy", "cached", "delegated"}
    for word in words:
        if word.partition("=")[0] in ("upperdir", "workdir", "idmap"):
            raise Unsupported(f"volume option is not supported: {word} in {text}")
        if word not in known:
            raise InvalidValue(f"unknown volume option: {word} in {text}")


def mount_options(words: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the words that mount(2) has."""
    return tuple(word for word in words if word in _PLAIN_OPTIONS or word in PROPAGATIONS)
