"""registries.conf (version 2): what a name means, where it is pulled from, and which registries may be reached.

`Registries.load` reads files; everything after it is pure. Nothing here ever prompts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType

from builda.errors import BuildaError, InvalidValue, NotFound, RegistryError, Unsupported
from builda.oci.reference import DEFAULT_REGISTRY, DEFAULT_TAG, Reference, ShortReference, parse_short
from builda.places import Places
from builda.tomlfile import read_toml
from builda.values import NamedTuple, dataclass, field, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from typing import Any, Literal, TypeAlias

PullFrom: TypeAlias = "Literal['all', 'digest-only', 'tag-only']"

_MODES = ("enforcing", "permissive", "disabled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A place tried before the registry itself, for the kinds of reference that `pull_from` names."""

    location: str
    insecure: bool = False
    pull_from: PullFrom = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """One `[[registry]]` table; `location` is None for a wildcard prefix that rewrites nothing."""

    prefix: str
    location: str | None
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()
    file: str | None = None


class PullSource(NamedTuple):
    """One place to pull a reference from; `insecure` allows plain HTTP and unknown certificates."""

    reference: Reference
    insecure: bool
    mirror: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Registries:
    """All configuration files merged; `search` is None where no file says where unqualified names live."""

    registries: tuple[Registry, ...] = ()
    search: tuple[str, ...] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    credential_helpers: tuple[str, ...] = ()
    only: tuple[str, ...] = ()  # where not empty, the registries that may be reached at all

    @classmethod
    def load(
        cls,
        places: Places,
        path: PathLike[str] | str | None = None,
        *,
        drop_ins: PathLike[str] | str | None = None,
        aliases: PathLike[str] | str | None = None,
    ) -> Registries:
        """The configuration of this machine and user, or of `path` alone (as $CONTAINERS_REGISTRIES_CONF).

        The files of the directory `drop_ins` replace those of registries.conf.d.
        $CONTAINERS_REGISTRIES_CONF_OVERRIDE comes last, then the limits of $BUILD_REGISTRY_SOURCES; `aliases` replaces
        the cache of learned short names. NotFound if a file or directory that was named does not exist.
        """
        if drop_ins is not None and not os.path.isdir(drop_ins):
            raise NotFound(f"no such directory of drop-ins for registries.conf: {drop_ins}")
        result = cls()
        for file in _files(places, path, drop_ins):
            result = _merge(result, read_toml(file, "registries.conf"), file)
        cache = os.fspath(aliases or places.short_name_aliases())
        if os.path.isfile(cache):
            result = _merge(result, {"aliases": read_toml(cache, "registries.conf").get("aliases", {})}, cache)
        return _limited(result, places.environ.get("BUILD_REGISTRY_SOURCES") or "{}")

    def candidates(self, text: str) -> tuple[Reference, ...]:
        """The full names that `text` may mean, best first: itself if qualified, its alias, or one per search registry.

        Without any search registry configured, a short name lives on docker.io.
        """
        short = parse_short(text)
        if short.registry is not None:
            return (Reference.parse(text),)
        alias = self.aliases.get(short.repository)
        if alias is not None:
            return (_with_version(Reference.parse(alias), short),)
        search = (DEFAULT_REGISTRY,) if self.search is None else self.search
        if not search:
            raise NotFound(
                f"no registry to search for the short name: {text}",
                hint=f"unqualified-search-registries is empty; write the registry too, as in docker.io/{text}",
            )
        return tuple(Reference.parse(f"{registry}/{text}") for registry in search)

    def registry_of(self, reference: Reference) -> Registry | None:
        """The table that applies to `reference`: the one with the longest matching prefix."""
        text = str(reference)
        matching = [entry for entry in self.registries if _match(entry.prefix, text) is not None]
        return max(matching, key=lambda entry: len(entry.prefix), default=None)

    def pull_sources(self, reference: Reference) -> tuple[PullSource, ...]:
        """The places to pull `reference` from, mirrors first; RegistryError if it is blocked."""
        entry = self.allowed(reference)
        if entry is None:
            return (PullSource(reference, False, False),)
        wanted: PullFrom = "digest-only" if reference.digest is not None else "tag-only"
        mirrors = tuple(
            PullSource(_rewrite(entry.prefix, mirror.location, reference), mirror.insecure, True)
            for mirror in entry.mirrors
            if mirror.pull_from in ("all", wanted)
        )
        primary = reference if entry.location is None else _rewrite(entry.prefix, entry.location, reference)
        return (*mirrors, PullSource(primary, entry.insecure, False))

    def allowed(self, reference: Reference) -> Registry | None:
        """The table that applies to `reference`; RegistryError when it says `blocked`."""
        entry = self.registry_of(reference)
        if entry is not None and entry.blocked:
            raise RegistryError(
                f"registry is blocked by {entry.file}: {reference}",
                hint=f"the entry for {entry.prefix} blocks it",
            )
        if self.only and reference.registry not in self.only:
            raise RegistryError(
                f"registry is not in allowedRegistries of BUILD_REGISTRY_SOURCES: {reference}",
                hint=f"it allows {', '.join(self.only)}",
            )
        return entry

    def is_insecure(self, reference: Reference) -> bool:
        """Whether the configuration allows plain HTTP and unknown certificates for `reference`."""
        entry = self.registry_of(reference)
        return entry is not None and entry.insecure


def _limited(base: Registries, text: str) -> Registries:
    """`base` with what $BUILD_REGISTRY_SOURCES, a JSON object of three lists of hosts, adds to it."""
    from builda import jsontext

    variable = "$BUILD_REGISTRY_SOURCES"
    try:
        value = jsontext.loads(text)
    except ValueError as error:
        raise InvalidValue(f"BUILD_REGISTRY_SOURCES is not JSON: {error}") from error
    names = ("insecureRegistries", "blockedRegistries", "allowedRegistries")
    if not isinstance(value, dict) or value.keys() - set(names):
        raise InvalidValue(f"BUILD_REGISTRY_SOURCES is not an object of {', '.join(names)}: {text}")
    insecure, blocked, only = (_strings(value.get(name) or [], name, variable) for name in names)
    tables = {entry.prefix: entry for entry in base.registries}
    for host in insecure:
        tables[host] = replace(tables.get(host, Registry(prefix=host, location=host)), insecure=True)
    for host in blocked:
        tables[host] = replace(tables.get(host, Registry(prefix=host, location=host)), blocked=True, file=variable)
    return replace(base, registries=tuple(tables.values()), only=only)


def _files(places: Places, path: PathLike[str] | str | None, drop_ins: PathLike[str] | str | None) -> Iterable[str]:
    """The files to read, in the order in which later ones win."""
    named = path or places.environ.get("CONTAINERS_REGISTRIES_CONF")
    if named:
        yield os.fspath(named)
    else:
        mains = (f"{directory}/registries.conf" for directory in places.directories())
        yield from [file for file in mains if os.path.isfile(file)][:1]
    if drop_ins is not None:
        yield from _drop_ins([os.fspath(drop_ins)])
    elif not named:
        yield from _drop_ins([f"{directory}/registries.conf.d" for directory in places.directories()])
    override = places.environ.get("CONTAINERS_REGISTRIES_CONF_OVERRIDE")
    if override:
        yield override


def _drop_ins(directories: Iterable[str]) -> Iterable[str]:
    """Drop-in files in the order of their names; one of an earlier directory hides those of the same name."""
    found: dict[str, str] = {}
    for directory in directories:
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            for name in os.listdir(directory):
                if name.endswith(".conf"):
                    found.setdefault(name, f"{directory}/{name}")
    return [found[name] for name in sorted(found)]


def _merge(base: Registries, value: Mapping[str, Any], file: str) -> Registries:
    """`base` with what `file` says: tables replace those of the same prefix, lists replace, an empty alias removes."""
    if "registries" in value:
        raise Unsupported(
            f"version 1 of registries.conf is not read any more: {file}",
            hint="write unqualified-search-registries and [[registry]] tables",
        )
    if value.get("short-name-mode", "permissive") not in _MODES:
        raise InvalidValue(f"short-name-mode is not one of {', '.join(_MODES)} in {file}: {value['short-name-mode']!r}")
    tables = {entry.prefix: entry for entry in base.registries}
    tables.update((entry.prefix, entry) for entry in _registries(value.get("registry", []), file))
    aliases = dict(base.aliases) | _aliases(value.get("aliases", {}), file)
    result = replace(
        base,
        registries=tuple(tables.values()),
        aliases=MappingProxyType({name: target for name, target in aliases.items() if target}),
    )
    if "unqualified-search-registries" in value:
        search = _strings(value["unqualified-search-registries"], "unqualified-search-registries", file)
        result = replace(result, search=tuple(_search_registry(host, file) for host in search))
    if "credential-helpers" in value:
        helpers = _strings(value["credential-helpers"], "credential-helpers", file)
        result = replace(result, credential_helpers=helpers)
    return result


def _registries(value: object, file: str) -> Iterable[Registry]:
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        raise InvalidValue(f"registry is not an array of tables in {file}")
    for table in value:
        yield _registry(table, file)


def _registry(table: Mapping[str, Any], file: str) -> Registry:
    location = _location(_text(table, "location", file), file)
    prefix = _text(table, "prefix", file).rstrip("/") or location
    if not prefix:
        raise InvalidValue(f"[[registry]] has neither prefix nor location in {file}")
    wildcard = prefix.startswith("*.")
    if "*" in prefix[1 if wildcard else 0 :]:
        raise InvalidValue(f"a prefix may only start with '*.' in {file}: {prefix}")
    digest_only = _flag(table, "mirror-by-digest-only", file)
    mirrors = table.get("mirror", [])
    if not isinstance(mirrors, list) or not all(isinstance(mirror, dict) for mirror in mirrors):
        raise InvalidValue(f"mirror is not an array of tables in {file}")
    return Registry(
        prefix=prefix,
        location=location or (None if wildcard else prefix),
        insecure=_flag(table, "insecure", file),
        blocked=_flag(table, "blocked", file),
        mirrors=tuple(_mirror(mirror, digest_only, file) for mirror in mirrors),
        file=file,
    )


def _mirror(table: Mapping[str, Any], digest_only: bool, file: str) -> Mirror:
    location = _location(_text(table, "location", file), file)
    if not location:
        raise InvalidValue(f"[[registry.mirror]] has no location in {file}")
    insecure, pull_from = _flag(table, "insecure", file), _text(table, "pull-from-mirror", file)
    if digest_only and pull_from:
        raise InvalidValue(f"mirror-by-digest-only and pull-from-mirror exclude each other in {file}: {location}")
    if digest_only:
        return Mirror(location=location, insecure=insecure, pull_from="digest-only")
    match pull_from:
        case "" | "all":
            return Mirror(location=location, insecure=insecure)
        case "digest-only" | "tag-only":
            return Mirror(location=location, insecure=insecure, pull_from=pull_from)
        case _:
            raise InvalidValue(f"pull-from-mirror is not one of all, digest-only, tag-only in {file}: {pull_from}")


def _location(text: str, file: str) -> str:
    """`text` without a trailing slash; it must be a name whose first part is unmistakably a host."""
    text = text.rstrip("/")
    if "://" in text:
        raise InvalidValue(f"a location has no scheme in {file}: {text}", hint=f"write {text.partition('://')[2]}")
    host = text.partition("/")[0]
    if text and "." not in host and ":" not in host and host != "localhost":
        raise InvalidValue(f"location does not start with a host in {file}: {text}")
    return text


def _search_registry(text: str, file: str) -> str:
    registry = text.rstrip("/")
    try:
        qualified = parse_short(f"{registry}/name").registry is not None
    except BuildaError as error:
        raise InvalidValue(f"invalid search registry in {file}: {text!r}") from error
    if not qualified:
        raise InvalidValue(f"search registry is not a host in {file}: {text!r}")
    return registry


def _aliases(value: object, file: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(target, str) for target in value.values()):
        raise InvalidValue(f"aliases is not a table of strings in {file}")
    return dict(value)


def _strings(value: object, name: str, file: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidValue(f"{name} is not an array of strings in {file}")
    return tuple(value)


def _text(table: Mapping[str, Any], key: str, file: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise InvalidValue(f"{key} is not a string in {file}: {value!r}")
    return value


def _flag(table: Mapping[str, Any], key: str, file: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise InvalidValue(f"{key} is not true or false in {file}: {value!r}")
    return value


def _match(prefix: str, text: str) -> int | None:
    """The length of the prefix in `text`; None if it does not match at a boundary."""
    if prefix.startswith("*."):
        start = text.find(prefix[1:])
        if start <= 0 or "/" in text[:start]:
            return None
        end = start + len(prefix) - 1
    else:
        if not text.startswith(prefix):
            return None
        end = len(prefix)
    return end if text[end : end + 1] in ("", "/", ":", "@") else None


def _rewrite(prefix: str, location: str, reference: Reference) -> Reference:
    text = str(reference)
    end = _match(prefix, text)
    assert end is not None, "the table was chosen because its prefix matches"
    rewritten = Reference.parse(location + text[end:])
    return rewritten if reference.tag or reference.digest else rewritten._replace(tag=None)


def _with_version(reference: Reference, short: ShortReference) -> Reference:
    tag = short.tag if short.tag or short.digest else DEFAULT_TAG
    return reference._replace(tag=tag, digest=short.digest)
