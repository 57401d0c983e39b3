"""The packages that an image shows, from its layers as they stream by.

Each file that a row of `ecosystems` wants is read when its layer passes, whether or not a later layer hides it; what
the layers are together (`fs.lists.layertree`) says which of them count. Of other files nothing is kept, so that memory
depends on directories, links and packages, which are limited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from builda.contents.ecosystems import PROGRAMS, Ecosystem, wanted
from builda.contents.facts import File, Flaw, Licences, Package, System, text
from builda.errors import CorruptContent
from builda.fs.lists.layertree import Row, Tree, row_of
from builda.fs.tar import HARD_LINK, REGULAR
from builda.fs.tarread import iter_members
from builda.fs.whiteouts import WHITEOUT
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.contents.facts import Fact
    from builda.fs.lists.layertree import Node
    from builda.fs.tarread import Member
    from builda.oci.digest import Readable

ENTRIES = 1_000_000
"""Directories, links and files with packages that an image may have."""
PACKAGES = 50_000
"""Packages that an image may have."""
_FLAWS = 20
"""Flaws of one file that are told."""
_SMALLEST = 256
"""Bytes that a program has at least."""


class Layer(NamedTuple):
    """A layer by its digest; `open` gives its tar, uncompressed, and verifies it at the end."""

    digest: str
    open: Callable[[], AbstractContextManager[Readable]]


class Found(NamedTuple):
    """A package with the file and the layer that say it is there."""

    package: Package
    what: str
    path: str
    layer: str


class Missing(NamedTuple):
    """A file that could not be read, its layer, and the reason."""

    message: str
    path: str
    layer: str

    def __str__(self) -> str:
        return f"{self.path} in layer {self.layer}: {self.message}"


class Contents(NamedTuple):
    """The packages of an image in the order of their names; `warnings` say what may be missing."""

    packages: tuple[Found, ...]
    warnings: tuple[Missing, ...]
    system: System | None


def scan(layers: Iterable[Layer]) -> Contents:
    """The contents of an image by its layers, lowest first; CorruptContent for a layer damaged or over a limit."""
    tree, work = Tree(), _Scan()
    for layer in layers:
        tree.add(tuple(work.rows(layer)), layer.digest)
    return _together(tree, work)


class _Read(NamedTuple):
    """The facts of one file."""

    row: Ecosystem
    facts: tuple[Fact, ...]


class _Scan:
    """The facts that were read so far. The `file` of a row is the key of the facts of its file."""

    def __init__(self) -> None:
        self.read: dict[str, _Read] = {}
        self._paths: set[bytes] = set()
        self._packages = 0

    def rows(self, layer: Layer) -> Iterator[Row]:
        """The entries of a layer that say something, or hide what does."""
        keys: dict[bytes, str] = {}
        late: dict[bytes, list[tuple[str, Ecosystem]]] = {}  # other names of files that were not read
        with layer.open() as tar:
            for member in iter_members(tar):
                row = row_of(member.entry)
                if row.kind == REGULAR:
                    row = row._replace(file=self._file(member, row.path))
                elif row.kind == HARD_LINK:
                    row = self._link(row, keys, late)
                else:
                    yield self._kept(row)
                    continue
                if row.file:
                    keys[row.path] = row.file
                if row.file or row.path in self._paths or row.path.rpartition(b"/")[2].startswith(WHITEOUT):
                    yield self._kept(row)
        if late:
            self._read_late(layer, late)

    def _kept(self, row: Row) -> Row:
        self._paths.add(row.path)
        if len(self._paths) > ENTRIES:
            raise CorruptContent(f"image has more than {ENTRIES} directories and links")
        return row

    def _file(self, member: Member, path: bytes) -> str:
        """The key of what the file says; "" if it says nothing."""
        row = wanted(path)
        if row is None:
            if not member.entry.mode & 0o111 or member.entry.size < _SMALLEST:
                return ""
            row = PROGRAMS
        facts = self._facts(row, member, path)
        return self._add(row, facts) if facts else ""

    def _add(self, row: Ecosystem, facts: tuple[Fact, ...]) -> str:
        key = str(len(self.read) + 1)
        self.read[key] = _Read(row, facts)
        return key

    def _facts(self, row: Ecosystem, member: Member, path: bytes) -> tuple[Fact, ...]:
        if member.content.sparse is not None:
            return () if row is PROGRAMS else (Flaw("is stored with holes and was not read"),)
        found: list[Fact] = []
        flaws = 0
        try:
            for fact in row.read(File(path.decode("utf-8", "replace"), member.entry.size, member.content.read)):
                if isinstance(fact, Flaw):
                    flaws += 1
                    if flaws > _FLAWS:
                        continue
                elif isinstance(fact, Package):
                    self._packages += 1
                    if self._packages > PACKAGES:
                        raise CorruptContent(f"image has more than {PACKAGES} packages")
                found.append(fact)
        except CorruptContent as error:
            if self._packages > PACKAGES:
                raise
            found.append(Flaw(str(error)))
        if flaws > _FLAWS:
            found.append(Flaw(f"has {flaws - _FLAWS} more such entries"))
        return tuple(found)

    def _link(self, row: Row, keys: dict[bytes, str], late: dict[bytes, list[tuple[str, Ecosystem]]]) -> Row:
        """The link as a file of its own that says what the file says which it is a name of."""
        target = row.link.strip(b"/")
        key = keys.get(target, "")
        ecosystem = wanted(row.path)
        if not key and ecosystem is not None:
            key = self._add(ecosystem, ())
            late.setdefault(target, []).append((key, ecosystem))
        return row._replace(kind=REGULAR, link=b"", file=key)

    def _read_late(self, layer: Layer, late: dict[bytes, list[tuple[str, Ecosystem]]]) -> None:
        """Read the files that a layer's links, but not their own names, ask for."""
        with layer.open() as tar:
            for member in iter_members(tar):
                asked = late.pop(row_of(member.entry).path, None) if member.entry.type == REGULAR else None
                if asked:
                    row = asked[0][1]
                    facts = self._facts(row, member, member.entry.name)
                    for key, _ in asked:
                        self.read[key] = _Read(row, facts)


def _together(tree: Tree, work: _Scan) -> Contents:
    packages: list[Found] = []
    warnings: list[Missing] = []
    systems: list[tuple[str, System]] = []
    for path, node in _files(tree):
        read = work.read[node.row.file]
        for fact in read.facts:
            match fact:
                case Package():
                    packages.append(Found(fact, read.row.what, path, node.place))
                case Flaw(message):
                    warnings.append(Missing(message, path, node.place))
                case System():
                    systems.append((path, fact))
                case _:
                    pass
    system = min(systems)[1] if systems else None  # etc/ comes before usr/lib/
    named = [_named(one, tree, work, system) for one in packages]
    return Contents(tuple(_once(named)), tuple(sorted(warnings, key=lambda one: (one.path, one.message))), system)


def _files(tree: Tree) -> Iterator[tuple[str, Node]]:
    """The files that the image shows and that said something."""
    stack: list[tuple[bytes, Node]] = [(b"/", tree.root)]
    while stack:
        prefix, node = stack.pop()
        for name, child in node.children.items():
            if child.is_directory:
                stack.append((prefix + name + b"/", child))
            elif child.row.file:
                yield text(prefix + name), child


_NAMESPACES = {"rhel": "redhat", "opensuse-leap": "opensuse", "opensuse-tumbleweed": "opensuse"}
_DEFAULTS = {"deb": "debian", "apk": "alpine"}


def _named(found: Found, tree: Tree, work: _Scan, system: System | None) -> Found:
    """A package of the distribution with its name and, where a copyright file says them, its licences."""
    package = found.package
    if package.type not in ("deb", "apk", "rpm"):
        return found
    vendor = _DEFAULTS.get(package.type, "") if system is None else system.id
    qualifiers = package.qualifiers
    if system is not None and system.version:
        qualifiers += (("distro", f"{system.id}-{system.version}"),)
    licences = package.licences or (_copyright(package.name, tree, work) if package.type == "deb" else ())
    named = package._replace(namespace=_NAMESPACES.get(vendor, vendor), qualifiers=qualifiers, licences=licences)
    return found._replace(package=named)


def _copyright(name: str, tree: Tree, work: _Scan) -> tuple[str, ...]:
    """The licences in the copyright file of a package; its directory may be a link to another package's."""
    node = tree.find(b"usr/share/doc/%b/copyright" % name.encode("utf-8", "replace"))
    facts = () if node is None or not node.row.file else work.read[node.row.file].facts
    return next((fact.licences for fact in facts if isinstance(fact, Licences)), ())


def _once(packages: list[Found]) -> Iterator[Found]:
    """Each package once for each file, in order; what a lock file names is left out if it is installed."""
    installed = {found.package[:4] for found in packages if not found.package.is_declared}
    seen: set[tuple[object, ...]] = set()
    for found in sorted(packages, key=lambda one: (one.package[:5], one.path)):
        key = (found.package[:5], found.path)
        if key in seen or (found.package.is_declared and found.package[:4] in installed):
            continue
        seen.add(key)
        yield found
