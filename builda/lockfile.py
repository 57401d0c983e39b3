"""`builda.lock`: which content the names in a Containerfile or script mean, by digest.

A lock file is JSON in one form only: sorted, indented by two spaces, so that a change of one image is a change of one
line. It holds no credentials: URLs are written without the password in them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from builda.display import without_passwords
from builda.errors import InvalidReference, InvalidValue, NotFound, Unsupported
from builda.inputfile import read_input
from builda.oci.descriptor import Platform
from builda.oci.digest import Digest
from builda.oci.reference import Reference, parse_short
from builda.outputfile import replace_whole
from builda.values import NamedTuple

FILE = "builda.lock"
VERSION = 1
UPDATE = "builda lock update"
_KINDS = ("images", "urls", "repositories")
_COMMIT = r"[0-9a-f]{40}|[0-9a-f]{64}"


class LockedImage(NamedTuple):
    """The image that a name means.

    `name` is its full name with the tag; None for an image that no registry has: one of the store or in a file.
    `digest` is that of the index where there is one, so that every platform builds from the same entry; `platforms`
    are those of the index, empty for a single image.
    """

    digest: str
    name: str | None = None
    platforms: tuple[str, ...] = ()

    def has(self, platform: Platform) -> bool:
        """Whether the index may have an image for `platform`."""
        there = tuple(map(Platform.parse, self.platforms))
        kin = ((one.os, one.architecture) == (platform.os, platform.architecture) for one in there)
        return not there or any(map(platform.runs, there)) or (platform.variant is None and any(kin))


class Lock(NamedTuple):
    """The content of one lock file: images by name as written, digests by URL, commits by git URL."""

    images: Mapping[str, LockedImage] = {}
    urls: Mapping[str, str] = {}
    repositories: Mapping[str, str] = {}

    def over(self, other: Lock) -> Lock:
        """All entries of both; this lock's where both have one."""
        return Lock(
            {**other.images, **self.images},
            {**other.urls, **self.urls},
            {**other.repositories, **self.repositories},
        )

    def changes(self, old: Lock) -> Iterable[tuple[str, str, str]]:
        """Name, old and new digest of each entry that `old` has with another digest."""
        for name, image in sorted(self.images.items()):
            if name in old.images and old.images[name].digest != image.digest:
                yield name, old.images[name].digest, image.digest
        for new, there in ((self.urls, old.urls), (self.repositories, old.repositories)):
            yield from ((name, there[name], to) for name, to in sorted(new.items()) if there.get(name, to) != to)


def key_of(url: str) -> str:
    """The key of a URL in a lock file: the URL without its password."""
    return without_passwords(url)


def read(path: str) -> Lock:
    """The lock in a file; NotFound if there is none, InvalidValue or Unsupported with the place for a wrong one."""
    try:
        return parse(read_input(path, "lock file"), path)
    except FileNotFoundError as error:
        raise NotFound(f"no such lock file: {path}", hint="builda bud --lock writes it") from error


def parse(data: bytes, file: str) -> Lock:
    """The lock in `data`. InvalidValue or Unsupported naming the place in `file` for anything else."""
    try:
        value = json.loads(data, object_pairs_hook=lambda pairs: _once(pairs, file), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"lock file is not JSON ({error}): {file}") from error
    whole = _object(value, file)
    if whole.get("version") != VERSION or isinstance(whole["version"], bool):
        raise Unsupported(
            f"lock file has version {_shown(whole.get('version'))}, this builda reads version {VERSION}: {file}",
            hint="use a newer builda, or write the file again with builda bud --lock",
        )
    _known(whole, ("version", *_KINDS), file)
    images, urls, repositories = (_object(whole.get(kind, {}), f"{file}: {kind}") for kind in _KINDS)
    return Lock(
        {name: _image(name, entry, f"{file}: images: {_shown(name)}") for name, entry in images.items()},
        {url: _digest(entry, f"{file}: urls: {_shown(url)}") for url, entry in urls.items()},
        {url: _commit(entry, f"{file}: repositories: {_shown(url)}") for url, entry in repositories.items()},
    )


def dump(lock: Lock) -> bytes:
    """The bytes of a lock file; the same for the same entries."""
    images = {name: {key: item for key, item in _written(image) if item} for name, image in lock.images.items()}
    value = {"version": VERSION, "images": images, "urls": lock.urls, "repositories": lock.repositories}
    ordered = {key: dict(sorted(item.items())) if isinstance(item, Mapping) else item for key, item in value.items()}
    return (json.dumps(ordered, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def save(path: str, new: Lock) -> Lock:
    """Add the entries of `new` to the lock file, in the place of those that it has; what it had before.

    Processes may do so at the same time. The file appears by rename, whole, and survives a power cut; a name that is a
    link stays one.
    """
    import fcntl

    path = os.path.realpath(path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        old = read(path) if os.path.lexists(path) else Lock()
        data = dump(new.over(old))
        if not os.path.lexists(path) or read_input(path, "lock file") != data:
            replace_whole(path, data, durable=True)
            os.fsync(directory)
        return old
    finally:
        os.close(directory)


def _written(image: LockedImage) -> Iterable[tuple[str, Any]]:
    yield "name", image.name
    yield "digest", image.digest
    yield "platforms", list(image.platforms)


def _image(key: str, value: object, where: str) -> LockedImage:
    entry = _object(value, where)
    _known(entry, ("name", "digest", "platforms"), where)
    name, platforms = entry.get("name"), entry.get("platforms", [])
    if not (name is None or isinstance(name, str)):
        raise InvalidValue(f"name is not text in {where}: {_shown(name)}")
    if name is not None:
        _reference(key, name, where)
    if not isinstance(platforms, list) or not all(isinstance(item, str) for item in platforms):
        raise InvalidValue(f"platforms are not a list of text in {where}")
    for item in platforms:
        _placed(Platform.parse, item, where)
    return LockedImage(_digest(entry.get("digest"), where), name, tuple(platforms))


def _reference(key: str, name: str, where: str) -> None:
    """Refuse a name that is not full, or that another image has than the one whose entry it is in."""
    try:
        found, short = Reference.parse(name), parse_short(key.removeprefix("docker://"))
    except InvalidReference as error:
        raise InvalidValue(f"{error}, in {where}") from error
    if str(found) != name or found.digest is not None:
        raise InvalidValue(f"name is not a full one with a tag in {where}: {_shown(name)}")
    meant = Reference.parse(key.removeprefix("docker://"))
    if short.registry is None:  # which registry has it, and under which name, registries.conf has said
        meant = found._replace(tag=meant.tag)
    if meant != found:
        raise InvalidValue(f"name belongs to another image in {where}: {_shown(name)}")


def _digest(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidValue(f"digest is not text in {where}: {_shown(value)}")
    _placed(Digest.parse, value, where)
    return value


def _commit(value: object, where: str) -> str:
    if not isinstance(value, str) or re.fullmatch(_COMMIT, value) is None:
        raise InvalidValue(f"commit is not 40 or 64 hexadecimal digits in {where}: {_shown(value)}")
    return value


def _placed(read_it: Any, value: str, where: str) -> None:
    try:
        read_it(value)
    except InvalidValue as error:
        raise InvalidValue(f"{error}, in {where}") from error


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValue(f"lock file needs an object here: {where}")
    return value


def _known(value: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    if unknown := sorted(value.keys() - set(names)):
        raise InvalidValue(f"lock file has an unknown key {_shown(unknown[0])}: {where}")


def _once(pairs: list[tuple[str, Any]], file: str) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        first = {name: place for place, (name, _) in reversed([*enumerate(pairs)])}
        twice = next(name for place, (name, _) in enumerate(pairs) if first[name] != place)
        raise InvalidValue(f"lock file has the key {_shown(twice)} twice: {file}", hint="a merge left both: keep one")
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)[:80]
    return text if len(text) <= 200 else f"{text[:200]}…"
