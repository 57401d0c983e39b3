"""Parse `--security-opt` and `--ulimit`; options that this kernel cannot enforce are refused."""

from __future__ import annotations

import os

from builda.errors import InvalidValue, Unsupported
from builda.isolation.spec import MASKED_PATHS, READONLY_PATHS
from builda.linux import caps
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.spec import Rlimit
    from builda.plan import RunOptions

_SELINUX = "/sys/fs/selinux/enforce"
_APPARMOR = "/sys/kernel/security/apparmor"
_RLIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)


class Security(NamedTuple):
    """The confinement of a command. `seccomp`: None for the default filter, "unconfined", or the path of a profile."""

    seccomp: str | None = None
    masked: tuple[str, ...] = MASKED_PATHS
    read_only: tuple[str, ...] = READONLY_PATHS
    no_new_privileges: bool = False


def capabilities(options: RunOptions, *, nodes: bool = True) -> tuple[str, ...]:
    """The capabilities that a command has: the default set with what was added, without what was dropped.

    A drop beats an add, whichever was said first: `from --cap-add` does not outlive `run --cap-drop`.
    Without `nodes` the default set lacks CAP_MKNOD.
    """
    dropped = {_capability(name) for name in options.cap_drop}
    added = tuple(name for name in options.cap_add if _capability(name) not in dropped)
    default = caps.DEFAULT if nodes else tuple(name for name in caps.DEFAULT if name != "CAP_MKNOD")
    return caps.effective_set(default, added, options.cap_drop)


def _capability(name: str) -> str:
    return "ALL" if name.strip().upper() == "ALL" else caps.parse_capability(name)


def security(options: tuple[str, ...]) -> Security:
    """Parse `--security-opt` texts; later ones win, and an unmask= beats any mask=, as in Buildah."""
    result = Security()
    unmasks: list[str] = []
    for text in options:
        name, separator, value = text.partition("=")
        if not separator:
            name, _, value = text.partition(":")  # Docker's old spelling
        if name.strip() == "unmask":
            unmasks += _unmasks(value.strip(), text)
        else:
            result = _applied(result, name.strip(), value.strip(), text)
    return _unmasked(result, unmasks) if unmasks else result


def _applied(current: Security, name: str, value: str, text: str) -> Security:
    match name:
        case "no-new-privileges":
            if value not in ("", "true", "false"):
                raise InvalidValue(f"no-new-privileges must be true or false: {text}")
            return current._replace(no_new_privileges=value != "false")
        case "seccomp":
            return current._replace(seccomp=_profile(value, text))
        case "mask":
            return current._replace(masked=tuple(dict.fromkeys((*current.masked, *_paths(value, text)))))
        case "label":
            _check_label(value, text)
            return current
        case "apparmor":
            if value != "unconfined":
                _refuse_apparmor(text)
            return current
        case _:
            raise InvalidValue(
                f"unknown security option: {text}",
                hint="there are seccomp=, mask=, unmask=, no-new-privileges, label= and apparmor=",
            )


def _profile(value: str, text: str) -> str:
    if value == "unconfined":
        return value
    if not value or not os.path.isfile(value):
        raise InvalidValue(f"no such seccomp profile: {value or text}", hint="give a file, or unconfined")
    return os.path.abspath(value)


def _paths(value: str, text: str) -> tuple[str, ...]:
    found = tuple(path for path in value.split(":") if path)
    if not found or not all(path.startswith("/") for path in found):
        raise InvalidValue(f"paths to mask must be absolute, and separated by colons: {text}")
    return found


def _unmasks(value: str, text: str) -> tuple[str, ...]:
    """The paths and patterns of unmask=; the word ALL, which stands for all paths, is kept."""
    words = value.split(":")
    others = ":".join(word for word in words if word.upper() != "ALL")
    every = tuple("ALL" for word in words if word.upper() == "ALL")
    return every if every and not others else (*every, *_paths(others, text))


def _unmasked(current: Security, patterns: list[str]) -> Security:
    from fnmatch import fnmatchcase

    def matches(path: str, pattern: str) -> bool:  # a wildcard matches within one part of a path
        parts, wanted = path.split("/"), pattern.split("/")
        return pattern == "ALL" or (len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted)))

    def kept(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(path for path in paths if not any(matches(path, pattern) for pattern in patterns))

    return current._replace(masked=kept(current.masked), read_only=kept(current.read_only))


def _check_label(value: str, text: str) -> None:
    """Refuse labels where SELinux is enabled; without SELinux they have no effect, as in Buildah."""
    kind = value.partition(":")[0]
    if kind not in ("disable", "user", "role", "type", "level", "filetype", "nested"):
        raise InvalidValue(f"unknown label option: {text}")
    if kind != "disable" and os.path.exists(_SELINUX):
        raise Unsupported(f"builda sets no SELinux labels: {text}", hint="label=disable asks for that explicitly")


def _refuse_apparmor(text: str) -> None:
    where = "builda sets no AppArmor profile" if os.path.exists(_APPARMOR) else "this kernel has no AppArmor"
    raise Unsupported(f"{where}: {text}", hint="commands run unconfined, as with apparmor=unconfined")


def rlimits(texts: tuple[str, ...]) -> tuple[Rlimit, ...]:
    """The limits that `type=soft[:hard]` texts ask for, the last of a type winning. Isolation says which cannot be."""
    from builda.isolation.spec import Rlimit

    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().lower().removeprefix("rlimit_")
        if name == "host" and not equals:
            continue  # containers.conf's word for: as the caller has them, which is so anyhow
        if not equals or name not in _RLIMITS:
            raise InvalidValue(f"not a limit: {text}", hint="write type=soft[:hard], for example nofile=1024:4096")
        soft_text, _, hard_text = value.partition(":")
        soft = _limit(soft_text, text)
        hard = _limit(hard_text, text) if hard_text else soft
        found[name] = Rlimit(type=f"RLIMIT_{name.upper()}", soft=soft, hard=hard)
    return tuple(found.values())


def _limit(value: str, text: str) -> int:
    if value.strip().lower() in ("-1", "unlimited", "infinity"):
        return -1
    if not value.strip().isdecimal():
        raise InvalidValue(f"a limit must be a number, or -1 for none: {text}")
    return int(value)
