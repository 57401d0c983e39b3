"""Secrets in an image: in the files of its layers, in its configuration, its history and its annotations.

Each layer is read once, from the lowest to the highest. A file that a higher layer deletes or replaces is in the image
all the same, as its layer is; the finding says so.
"""

from __future__ import annotations

import io
import os
import re
from bisect import bisect_left

from builda.errors import InvalidValue
from builda.fs.tar import DIRECTORY, clean
from builda.fs.tarread import iter_members
from builda.fs.whiteouts import OPAQUE, hidden_by
from builda.scan.filescan import secrets_in
from builda.scan.secretkinds import VARIABLE, is_secret_name
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from builda.oci.config import ImageConfig
    from builda.oci.digest import Readable

LIMIT = 1000
"""Findings of one image that are kept."""
_IGNORED = r"(\S+)\s+(\S.*?)\s+#\s*(\S.*)"


class Finding(NamedTuple):
    """A secret, by its kind and its place; never the secret itself.

    `place` is the path of a file, or what of the configuration it is: `Env NAME`, `history 3`. `layer` is the number of
    its layer, from 1 on, and `digest` that layer's; it is 0 for the configuration. `hidden` is the layer that deletes
    or replaces the file, 0 if none does.
    """

    rule: str
    kind: str
    place: str
    line: int
    layer: int = 0
    digest: str = ""
    hidden: int = 0
    replaced: bool = False

    def __str__(self) -> str:
        where = f"layer {self.layer}, {self.place}:{self.line}" if self.layer else self.place
        how = "replaced" if self.replaced else "deleted"
        ships = f"; {how} in layer {self.hidden}, still ships in layer {self.layer}" if self.hidden else ""
        return f"{where}: {self.kind} ({self.rule}){ships}"

    def to_json(self) -> dict[str, object]:
        """The finding for programs."""
        found: dict[str, object] = {"rule": self.rule, "kind": self.kind, "place": self.place}
        if self.layer:
            found |= {"line": self.line, "layer": self.layer, "digest": self.digest}
        if self.hidden:
            found |= {"replacedIn" if self.replaced else "deletedIn": self.hidden}
        return found


class Ignored(NamedTuple):
    """One line of an allow file: a rule (`*` for all) and the places, with wildcards, in which it is accepted."""

    rule: str
    place: str

    def covers(self, finding: Finding) -> bool:
        """Whether the line accepts the finding."""
        from fnmatch import fnmatchcase

        return self.rule in ("*", finding.rule) and fnmatchcase(finding.place, self.place)


def parse_ignored(data: bytes, file: str) -> tuple[Ignored, ...]:
    """The lines `RULE PLACE # reason` of an allow file; InvalidValue with the line for one without a reason."""
    found = []
    for number, line in enumerate(data.decode(errors="surrogateescape").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.fullmatch(_IGNORED, line.strip())
        if match is None:
            hint = "write: private-key /etc/ssl/test.key # only for tests"
            raise InvalidValue(f"line is not RULE PLACE # reason: {file}:{number}", hint=hint)
        found.append(Ignored(match[1], match[2]))
    return tuple(found)


class Layers:
    """The findings in the layers that were read so far, from the lowest on; the first `LIMIT` of them."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._shown: dict[bytes, list[int]] = {}  # paths that no layer has hidden yet, and their findings
        self._count = 0

    def read(self, plain: Readable, digest: str) -> None:
        """Look at the next layer, an uncompressed archive. CorruptContent for a damaged one."""
        self._count += 1
        below = _Below(self._shown)
        self._shown = {}
        for entry, content in iter_members(plain):
            path = clean(entry.name)
            head, _, name = path.rpartition(b"/")
            hidden = hidden_by(head, name)
            if hidden is not None:
                inside = head + b"/" if head else b""
                self._hide(below.take(inside if hidden == OPAQUE else inside + hidden, within=hidden == OPAQUE), b"")
                continue
            if entry.type != DIRECTORY:
                self._hide(below.take(path), path)
                self._shown.pop(path, None)  # of two entries of one name the second counts
            if content.remaining:
                self._look(content, path, digest)
        for path, found in below.left.items():
            self._shown.setdefault(path, []).extend(found)

    def _look(self, content: Readable, path: bytes, digest: str) -> None:
        shown = "/" + os.fsdecode(path)
        for hit in secrets_in(content, shown):
            if len(self.findings) == LIMIT:
                return
            self._shown.setdefault(path, []).append(len(self.findings))
            self.findings.append(Finding(hit.rule.name, hit.rule.kind, shown, hit.line, self._count, digest))

    def _hide(self, hidden: Iterable[tuple[bytes, list[int]]], replaced: bytes) -> None:
        """This layer hides these paths, or has another file of the name `replaced`."""
        for path, found in hidden:
            for number in found:
                finding = self.findings[number]
                self.findings[number] = finding._replace(hidden=self._count, replaced=path == replaced)


class _Below:
    """The paths with findings that the layers below a layer show."""

    def __init__(self, paths: dict[bytes, list[int]]) -> None:
        self.left = paths
        self._sorted = sorted(paths)

    def take(self, path: bytes, *, within: bool = False) -> Iterator[tuple[bytes, list[int]]]:
        """The path itself and all below it, which are hidden now; with `within` only what is below."""
        if not self.left:
            return
        if not within and path in self.left:
            yield path, self.left.pop(path)
        inside = path if within else path + b"/"
        for number in range(bisect_left(self._sorted, inside), len(self._sorted)):
            other = self._sorted[number]
            if not other.startswith(inside):
                return
            if other in self.left:
                yield other, self.left.pop(other)


def in_documents(config: ImageConfig, annotations: Mapping[str, str]) -> Iterator[Finding]:
    """The secrets in what an image says of itself."""
    for name, value in config.env:
        yield from _of_variable(f"Env {name}", name, value)
    for name, value in config.labels.items():
        yield from _of_variable(f"Labels {name}", name, value)
    for name, value in annotations.items():
        yield from _of_variable(f"annotations {name}", name, value)
    for key, words in (("Entrypoint", config.entrypoint), ("Cmd", config.cmd)):
        yield from _of_text(key, " ".join(words or ()))
    if config.healthcheck is not None:
        yield from _of_text("Healthcheck", " ".join(config.healthcheck.test or ()))
    for number, trigger in enumerate(config.onbuild, 1):
        yield from _of_text(f"OnBuild {number}", trigger)
    for number, entry in enumerate(config.history, 1):
        yield from _of_text(f"history {number}", f"{entry.created_by or ''}\n{entry.comment or ''}")


def _of_variable(place: str, name: str, value: str) -> Iterable[Finding]:
    return _of_text(place, f"{name}={value}", whole=True)


def _of_text(place: str, text: str, *, whole: bool = False) -> Iterator[Finding]:
    """The kinds of secrets in a text; with `whole` it is one variable, whose value goes on to the end."""
    data = text.encode(errors="surrogateescape")
    kinds = {hit.rule.name: hit.rule.kind for hit in secrets_in(io.BytesIO(data), "/.env")}
    if not kinds:
        name, _, value = data.partition(b"=")
        pairs = [(name, value)] if whole else [(match["name"], match["secret"]) for match in _variables(data)]
        if any(is_secret_name(name) and VARIABLE.check is not None and VARIABLE.check(value) for name, value in pairs):
            kinds[VARIABLE.name] = VARIABLE.kind
    for rule, kind in kinds.items():
        yield Finding(rule, kind, place, 1)


def _variables(data: bytes) -> Iterator[re.Match[bytes]]:
    return re.finditer(VARIABLE.pattern, data)
