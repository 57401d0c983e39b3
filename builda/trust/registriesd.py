"""registries.d (containers-registries.d(5)): where the signatures of images in registries are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from builda.errors import BuildaError, InvalidValue, Unsupported
from builda.inputfile import read_yaml
from builda.oci.digest import Digest
from builda.oci.reference import Reference
from builda.places import Places
from builda.trust.policy import docker_scopes
from builda.values import NamedTuple, dataclass

_TEXTS = ("lookaside", "lookaside-staging", "sigstore", "sigstore-staging")
_SWITCH = "use-sigstore-attachments"
_READ = ("lookaside", "sigstore")
_WRITTEN = ("lookaside-staging", "sigstore-staging", *_READ)
_BOOLEANS = {"true": True, "false": False}


class Lookaside(NamedTuple):
    """A directory of signatures by its URL, of the scheme file, http or https; `path` is its path, unescaped."""

    url: str
    scheme: str
    path: str

    def of(self, reference: Reference, digest: Digest, number: int) -> Lookaside:
        """The place of one signature of an image; the first one has the number 1."""
        parts = reference.repository.split("/")
        if any(part in ("", ".", "..") for part in parts):  # the grammar of names has none of these
            raise InvalidValue(f"there is no place for signatures of such a name: {reference}")
        tail = f"/{reference.repository}@{digest.algorithm}={digest.encoded}/signature-{number}"
        split = urlsplit(self.url)
        url = split._replace(path=split.path.rstrip("/") + quote(tail, safe="/@=")).geturl()
        return Lookaside(url, self.scheme, self.path.rstrip("/") + tail)


@dataclass(frozen=True, slots=True)
class Section:
    """The settings for the images of one scope, and their file."""

    file: str
    urls: Mapping[str, str]
    attachments: bool | None

    def first(self, names: tuple[str, ...]) -> str | None:
        """The first of these URLs that is configured."""
        return next((self.urls[name] for name in names if name in self.urls), None)


@dataclass(frozen=True, slots=True)
class Signatures:
    """All files of registries.d together. `fallback` is the directory where nothing is said."""

    fallback: str
    default: Section | None = None
    sections: Mapping[str, Section] = {}  # never changed

    @classmethod
    def load(cls, places: Places) -> Signatures:
        """The user's directory if there is one, else the machine's; InvalidValue naming a file that means nothing."""
        fallback = str(_fallback(places))
        user, machine, _ = (directory / "registries.d" for directory in places.configuration())
        place = user if user.is_dir() else machine
        default: Section | None = None
        found: dict[str, Section] = {}
        for file in _files(place):
            own, sections = read_file(file)
            if own is not None and default is not None:
                raise InvalidValue(f"default-docker is in two files: {default.file} {file}")
            default = own or default
            for scope, section in sections.items():
                if scope in found:
                    raise InvalidValue(f"{scope} is in two files: {found[scope].file} {file}")
                found[scope] = section
        return cls(fallback, default, found)

    def to_read(self, reference: Reference) -> Lookaside:
        """The place that signatures of the image are read from."""
        return self._lookaside(reference, _READ)

    def to_write(self, reference: Reference) -> Lookaside:
        """The place that signatures of the image are written to; Unsupported if that is no directory."""
        found = self._lookaside(reference, _WRITTEN)
        if found.scheme != "file":
            raise Unsupported(
                f"signatures cannot be written to {found.url}",
                hint="registries.d can name a directory for them: lookaside-staging: file:///…",
            )
        return found

    def has_attachments(self, reference: Reference) -> bool:
        """Whether cosign's signatures of the image are in the registry beside it."""
        said = (section.attachments for section in self._sections(reference))
        return next((one for one in said if one is not None), False)

    def _lookaside(self, reference: Reference, names: tuple[str, ...]) -> Lookaside:
        for section in self._sections(reference):
            url = section.first(names)
            if url is not None:
                return _lookaside(url, section.file)
        return directory(self.fallback)

    def _sections(self, reference: Reference) -> list[Section]:
        """Those of the image's scopes, the narrowest first, then the default."""
        found = [self.sections[scope] for scope in docker_scopes(reference) if scope in self.sections]
        return [*found, self.default] if self.default is not None else found


def directory(path: str) -> Lookaside:
    """The directory as a storage of signatures."""
    whole = os.path.abspath(path)
    return Lookaside(f"file://{quote(whole)}", "file", whole)


def _fallback(places: Places) -> Path:
    if places.uid == 0:
        return places.system / "var/lib/containers/sigstore"
    return places.home() / ".local/share/containers/sigstore"


def _files(directory: Path) -> list[Path]:
    try:
        return sorted(directory / name for name in os.listdir(directory) if name.endswith(".yaml"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BuildaError(f"registries.d cannot be read, {(error.strerror or '').lower()}: {directory}") from error


def read_file(file: Path) -> tuple[Section | None, dict[str, Section]]:
    """The default section of one file, and its sections by scope; InvalidValue with its path if it is malformed."""
    try:
        value = read_yaml(file, "file of registries.d") or {}
    except FileNotFoundError:  # it was removed meanwhile
        return None, {}
    except OSError as error:
        raise BuildaError(f"file cannot be read, {(error.strerror or '').lower()}: {file}") from error
    _check_keys(value, {"default-docker", "docker"}, str(file))
    default, scopes = (value.get(name) for name in ("default-docker", "docker"))
    scopes = {} if scopes in (None, "") else scopes
    if not isinstance(scopes, dict):
        raise InvalidValue(f"docker is not a mapping in {file}")
    sections = {scope: _section(section, f"docker, {scope}", str(file)) for scope, section in scopes.items()}
    return None if default in (None, "") else _section(default, "default-docker", str(file)), sections


def _section(value: Any, where: str, file: str) -> Section:
    value = {} if value in (None, "") else value  # an empty YAML value is an empty text here
    _check_keys(value, {*_TEXTS, _SWITCH}, f"{where}, in {file}")
    urls = {name: value[name] for name in _TEXTS if value.get(name)}
    for name, url in urls.items():
        if not isinstance(url, str):
            raise InvalidValue(f"{name} is not a URL in {where}, in {file}")
        _lookaside(url, file)
    said = value.get(_SWITCH)
    if said is not None and said not in _BOOLEANS:
        raise InvalidValue(f"{_SWITCH} must be true or false in {where}, in {file}: {said}")
    return Section(file, urls, None if said is None else _BOOLEANS[said])


def _check_keys(value: Any, known: set[str], where: str) -> None:
    if not isinstance(value, dict):
        raise InvalidValue(f"not a mapping: {where}")
    unknown = [str(key) for key in value if key not in known]
    if unknown:
        raise InvalidValue(f"unknown key {unknown[0]!r}: {where}", hint=f"it is {', '.join(sorted(known))}")


def _lookaside(url: str, file: str) -> Lookaside:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidValue(f"not a URL in {file}: {url}") from error
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return Lookaside(url, "file", unquote(parts.path))
    if parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment):
        return Lookaside(url, parts.scheme, parts.path)
    raise InvalidValue(f"storage of signatures is written file:///…, http://… or https://…, in {file}: {url}")
