"""`image sync`: many images from registries or directories into a registry or a directory. Plan first, then copy.

The YAML file and the names at the destination are those of skopeo sync.
"""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from builda.builder.image import between
from builda.errors import BuildaError, InvalidValue, NotFound
from builda.inputfile import read_yaml
from builda.oci.digest import Digest
from builda.oci.reference import Reference
from builda.values import NamedTuple, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from builda.builder.context import Context
    from builda.builder.imageoptions import RegistryAccess
    from builda.oci.descriptor import Descriptor

FILE_LIMIT = 1 << 20
"""Bytes that a YAML file may have."""
_DEPTH = 16
"""Directories below the one named in which images are looked for."""
_KEYS = frozenset({"images", "images-by-tag-regex", "images-by-semver", "credentials", "tls-verify", "cert-dir"})


Tags: TypeAlias = "Callable[[], tuple[str, ...]]"
"""Asks for all tags of a repository."""
Chooser: TypeAlias = "Callable[[Tags], tuple[str, ...]]"
"""The tags and digests that are wanted of a repository."""


class Job(NamedTuple):
    """One image to be copied: where it is, how that is reached, and where it goes."""

    source: str
    access: RegistryAccess
    destination: str


class Naming(NamedTuple):
    """How names of images at the destination are made."""

    kind: str  # docker or dir
    place: str
    scoped: bool  # by their whole names
    suffix: str  # behind each tag


# The plan


def from_registry(ctx: Context, text: str, access: RegistryAccess, naming: Naming) -> Iterator[Job]:
    """The image that `text` means, or without a tag or digest every image of its repository."""
    name = text.removeprefix("docker://")
    reference = Reference.parse(name)
    whole = reference.digest is None and ":" not in name.rpartition("/")[2]
    tags = ctx.remote.tags(reference, access) if whole else (reference.tag,)
    for tag in tags:
        yield _job(reference._replace(tag=tag), access, naming)


def from_directory(path: str, access: RegistryAccess, naming: Naming) -> Iterator[Job]:
    """Every dir: image below a directory, or the one in it."""
    if not os.path.isdir(path):
        raise NotFound(f"no such directory: {path}")
    found = sorted(_images_below(path))
    if not found:
        raise NotFound(f"no image in the directory: {path}", hint="images are directories with a manifest.json")
    for directory in found:
        inner = os.path.relpath(directory, path) if directory != path else os.path.basename(os.path.abspath(path))
        name = inner if naming.scoped else os.path.basename(inner)
        yield Job(f"dir:{directory}", access, _destination(naming, name))


def from_file(ctx: Context, path: str, access: RegistryAccess, naming: Naming) -> Iterator[Job]:
    """The images that a YAML file lists by registries."""
    for registry, section in _sections(path):
        own = _access_of(section, access, f"{path}, {registry}")
        for name, wanted in _repositories(section, f"{path}, {registry}"):
            reference = Reference.parse(f"{registry}/{name}")._replace(tag=None)
            for version in wanted(partial(ctx.remote.tags, reference, own)):
                yield _job(_versioned(reference, version), own, naming)


def _versioned(reference: Reference, version: str) -> Reference:
    if version.startswith("sha256:"):
        return reference._replace(digest=Digest.parse(version))
    return Reference.parse(f"{reference.name}:{version}")


def _job(reference: Reference, access: RegistryAccess, naming: Naming) -> Job:
    full = str(reference if reference.digest is None else reference._replace(tag=None))
    name = full if naming.scoped else full.rpartition("/")[2]
    return Job(f"docker://{full}", access, _destination(naming, name))


def _destination(naming: Naming, name: str) -> str:
    if naming.kind == "dir":
        return f"dir:{naming.place.rstrip('/')}/{name}{naming.suffix}"
    place = naming.place.removeprefix("docker://").rstrip("/")
    if "@" in name:  # a registry calls it so by itself
        return f"docker://{place}/{name}"
    tagged = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    return f"docker://{place}/{_path_of(tagged)}{naming.suffix}"


def _path_of(name: str) -> str:
    """A whole name below another registry, where the port of its own cannot stand."""
    first, slash, rest = name.partition("/")
    return f"{first.replace(':', '-')}{slash}{rest}" if slash else name


def _images_below(path: str) -> Iterator[str]:
    pending = [(path, 0)]
    while pending:
        directory, depth = pending.pop()
        with os.scandir(directory) as found:
            entries = tuple(found)
        if any(entry.name == "manifest.json" for entry in entries):
            yield directory
        elif depth < _DEPTH:
            inner = (entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
            pending += [(below, depth + 1) for below in inner]


# The file


def _sections(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    document = read_yaml(path, "list of images", FILE_LIMIT)
    if not isinstance(document, dict) or not document:
        raise InvalidValue(f"not a mapping of registries: {path}")
    for registry, section in document.items():
        if not isinstance(registry, str) or not isinstance(section, dict):
            raise InvalidValue(f"not a registry with its images: {path}, {registry}")
        if unknown := {*map(str, section)} - _KEYS:
            hint = f"it is {', '.join(sorted(_KEYS))}"
            raise InvalidValue(f"unknown key: {path}, {registry}, {min(unknown)}", hint=hint)
        yield registry, section


def _repositories(section: Mapping[str, Any], where: str) -> Iterator[tuple[str, Chooser]]:
    """Each repository with the function that chooses its tags; that function is given one that lists all tags."""
    for name, versions in _mapping(section, "images", where):
        listed = versions or []
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise InvalidValue(f"not a list of tags: {where}, images, {name}")
        yield name, partial(_these, tuple(listed))
    for name, pattern in _mapping(section, "images-by-tag-regex", where):
        matches = _compiled(pattern, f"{where}, images-by-tag-regex, {name}")
        yield name, partial(_fitting, matches.search)
    for name, text in _mapping(section, "images-by-semver", where):
        accepts = _range(str(text), f"{where}, images-by-semver, {name}")
        yield name, partial(_fitting, accepts)


def _these(chosen: tuple[str, ...], tags: Tags) -> tuple[str, ...]:
    return chosen or tags()


def _fitting(fits: Callable[[str], object], tags: Tags) -> tuple[str, ...]:
    return tuple(tag for tag in tags() if fits(tag))


def _mapping(section: Mapping[str, Any], key: str, where: str) -> Iterable[tuple[str, Any]]:
    found = section.get(key) or {}
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise InvalidValue(f"not a mapping of repositories: {where}, {key}")
    return found.items()


def _compiled(pattern: Any, where: str) -> re.Pattern[str]:
    try:
        return re.compile(str(pattern))
    except re.error as error:
        raise InvalidValue(f"not a regular expression: {where}: {error}") from error


def _access_of(section: Mapping[str, Any], access: RegistryAccess, where: str) -> RegistryAccess:
    credentials, verify, certificates = (section.get(key) for key in ("credentials", "tls-verify", "cert-dir"))
    if credentials is not None:
        pair = credentials if isinstance(credentials, dict) else {}
        user, password = pair.get("username"), pair.get("password")
        if not isinstance(user, str) or not isinstance(password, str):
            raise InvalidValue(f"credentials have no username or no password: {where}")
        access = replace(access, creds=f"{user}:{password}")
    if verify not in (None, "true", "false") or not isinstance(certificates, str | None):
        raise InvalidValue(f"tls-verify must be true or false, cert-dir a path: {where}")
    return replace(
        access,
        tls_verify=access.tls_verify if verify is None else verify == "true",
        cert_dir=certificates or access.cert_dir,
    )


# Ranges of versions

_VERSION = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?")
_COMPARISON = re.compile(r"(>=|<=|!=|=>|=<|>|<|=|~|\^)?\s*v?(\d+)(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?")


def _range(text: str, where: str) -> Callable[[str], bool]:
    """Whether a tag is a version in the range, as in `>= 1.2, < 2 || ^3.1`. Tags that are no versions are not."""
    alternatives = [_comparisons(part, text, where) for part in text.split("||")]

    def accepts(tag: str) -> bool:
        found = _VERSION.fullmatch(tag)
        if found is None:
            return False
        version = tuple(int(part or 0) for part in found.groups())
        return any(all((low <= version < high) == inside for low, high, inside in one) for one in alternatives)

    return accepts


_TOP = (1 << 62, 0, 0)


def _comparisons(part: str, text: str, where: str) -> list[tuple[tuple[int, ...], tuple[int, ...], bool]]:
    """Intervals of versions, lower end included, and whether a version has to be inside."""
    found = []
    for piece in (one for one in re.split(r",\s*|\s+(?=[<>=!~^\d])(?<![<>=!~^]\s)", part.strip()) if one):
        match = _COMPARISON.fullmatch(piece.strip())
        if match is None:
            raise InvalidValue(f"not a range of versions: {where}: {text}", hint="write, as in >= 1.2, < 2")
        found.append(_interval(match[1] or "=", [one for one in match.groups()[1:] if one and one.isdecimal()]))
    if not found:
        raise InvalidValue(f"not a range of versions: {where}: {text}", hint="write, as in >= 1.2, < 2")
    return found


def _interval(sign: str, parts: list[str]) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    numbers = [int(part) for part in parts]
    low = tuple([*numbers, 0, 0][:3])
    after = _after(numbers, len(numbers) - 1)
    match sign:
        case ">=" | "=>":
            return low, _TOP, True
        case ">":
            return after, _TOP, True
        case "<":
            return (0, 0, 0), low, True
        case "<=" | "=<":
            return (0, 0, 0), after, True
        case "!=":
            return low, after, False
        case "~":
            return low, _after(numbers, min(1, len(numbers) - 1)), True
        case "^":
            first = next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)
            return low, _after(numbers, first), True
        case _:
            return low, after, True


def _after(numbers: list[int], place: int) -> tuple[int, ...]:
    """The first version that differs in this place or one before it."""
    return tuple([*numbers[:place], numbers[place] + 1, 0, 0][:3])


# Copying


def run(
    ctx: Context, jobs: Iterable[Job], options: between.CopyOptions, *, keep_going: bool
) -> Iterator[tuple[Job, Descriptor | BuildaError]]:
    """Copy one after the other; what became of each. Without `keep_going` the first failure is raised."""
    for job in jobs:
        if job.destination.startswith("dir:"):
            os.makedirs(os.path.dirname(job.destination.removeprefix("dir:")), exist_ok=True)
        try:
            yield job, between.copy(ctx, job.source, job.destination, job.access, options)
        except BuildaError as error:
            if not keep_going:
                raise
            yield job, error
