"""What the layers of an archive say of each file, to list by path how two images differ."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

BY_CHANCE = re.compile(
    r"var/log/.*\.log$|var/cache/apt/\w+\.bin$|var/cache/ldconfig/aux-cache$|var/cache/fontconfig/"
    r"|etc/ssh/ssh_host_|etc/ssl/(certs|private)/.*(snakeoil|java)|etc/ssl/certs/java/|(etc|var/lib/dbus)/machine-id$"
    r"|etc/ldap/slapd\.d/|var/lib/(ldap|mysql)/|var/lib/rabbitmq/\.erlang\.cookie$|var/lib/postgresql/\d+/main/"
    r"|.*/__pycache__/|usr/lib/jvm/.*/classes\.jsa$|var/cache/man/|root/\.npm/|.*\.key$|.*/random-seed$"
    r"|(run/sudo/ts|var/spool/cron/crontabs)/"
)
"""Files whose content differs between any two runs: keys, times, identifiers. All else of them is compared."""


class Entry(NamedTuple):
    """An entry without its name. `content` is a hash."""

    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: float
    link: str
    device: tuple[int, int]
    xattrs: tuple[tuple[str, str], ...]
    content: str


def layers(archive: Path) -> list[dict[str, Entry]]:
    """The layers of the one image in an OCI archive, lowest first."""
    with tarfile.open(archive) as tar:

        def blob(digest: str) -> tarfile.ExFileObject:
            found = tar.extractfile("blobs/" + digest.replace(":", "/"))
            assert isinstance(found, tarfile.ExFileObject)
            return found

        index = tar.extractfile("index.json")
        assert index is not None
        manifest = json.load(blob(json.load(index)["manifests"][0]["digest"]))
        return [dict(_entries(blob(layer["digest"]))) for layer in manifest["layers"]]


def _entries(file: tarfile.ExFileObject) -> Iterable[tuple[str, Entry]]:
    with tarfile.open(fileobj=file) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            digest = "" if content is None else hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
            attributes = sorted(
                (key.removeprefix("SCHILY.xattr."), value)
                for key, value in member.pax_headers.items()
                if key.startswith("SCHILY.xattr.")
            )
            entry = Entry(
                member.type,
                member.mode,
                member.uid,
                member.gid,
                member.mtime,
                member.linkname,
                (member.devmajor, member.devminor),
                tuple(attributes),
                "by chance" if BY_CHANCE.match(member.name) else digest,
            )
            yield member.name, entry


def differences(wanted: Path, found: Path) -> list[str]:
    """A line for each file by which the layers of two images differ."""
    ours, theirs = layers(wanted), layers(found)
    lines = [] if len(ours) == len(theirs) else [f"{len(ours)} layers, not {len(theirs)}"]
    for number, (left, right) in enumerate(zip(ours, theirs, strict=False)):
        for path in sorted(left.keys() | right.keys()):
            before, after = left.get(path), right.get(path)
            if before is None or after is None:
                lines.append(f"{number} {path}: {'missing' if after is None else 'not wanted'}")
            elif before != after:
                fields = zip(Entry._fields, before, after, strict=True)
                lines.append(f"{number} {path}: " + ", ".join(f"{n} {a} {b}" for n, a, b in fields if a != b))
    return lines
