"""Reads the documents, history and files of an image, in the store or outside."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from builda.builder.image.between import source_of
from builda.builder.image.listmembers import Places, opened
from builda.errors import CorruptContent, InvalidValue, NotFound, Unsupported
from builda.oci import mediatype
from builda.oci.config import CONFIG_LIMIT, config_to_json, parse_config
from builda.oci.digest import VerifyingReader
from builda.oci.manifest import Manifest, parse
from builda.transfer.converting import Chosen
from builda.transfer.copyimage import read_blob
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.context import Context
    from builda.builder.imageoptions import RegistryAccess
    from builda.fs.lists.layertree import Node, Row, Tree
    from builda.oci.config import History, ImageConfig
    from builda.oci.descriptor import Descriptor, Platform
    from builda.oci.digest import Digest, Readable
    from builda.transfer.copyimage import ImageSource

_PIECE = 1 << 20
_DEEPEST = 32
"""Directories above a file whose bytes are counted: how deep paths are is up to the image."""


class Seen(NamedTuple):
    """One image with its documents; of a list, the image for the platform. `given` is the digest of what was named."""

    source: ImageSource
    given: Digest
    descriptor: Descriptor
    manifest: Manifest
    raw_config: bytes
    config: ImageConfig
    names: tuple[str, ...]


class Step(NamedTuple):
    """One entry of an image's history, with its layer if it has one."""

    history: History
    layer: Descriptor | None


class Weight(NamedTuple):
    """A file or directory of a layer, its bytes, and how many files it is or holds."""

    path: str
    bytes: int
    files: int


class Change(NamedTuple):
    """A path in which two images differ: `A`dded, `C`hanged or `D`eleted, and its bytes before and after."""

    kind: str
    path: str
    before: int
    after: int


def seen(ctx: Context, text: str, access: RegistryAccess, platform: Platform) -> Seen:
    """The image that `text` means, in the store or outside; Unsupported for an artifact, which is no image."""
    found = opened(Places(ctx.store, ctx.remote, access, ctx.emit), text)
    source = Chosen(source_of(ctx, found, access), platform)
    descriptor, data = source.manifest()
    manifest = parse(data, descriptor.media_type)
    assert isinstance(manifest, Manifest), "an image is chosen"
    if manifest.config.media_type not in mediatype.CONFIGS:
        raise Unsupported(f"is an artifact, not an image: {text}", hint="image inspect --raw shows its manifest")
    raw_config = read_blob(source, manifest.config, CONFIG_LIMIT)
    return Seen(
        source, source.given, descriptor, manifest, raw_config, parse_config(raw_config), getattr(found, "names", ())
    )


def raw(ctx: Context, text: str, access: RegistryAccess) -> bytes:
    """The bytes of the manifest or list that `text` means."""
    found = opened(Places(ctx.store, ctx.remote, access, ctx.emit), text)
    return source_of(ctx, found, access).manifest()[1]


def history_of(image: Seen) -> tuple[Step, ...]:
    """The history of the image with its layers, oldest first; CorruptContent if these do not fit each other."""
    layers = iter(image.manifest.layers)
    steps = []
    for entry in image.config.history:
        layer = None if entry.empty_layer else next(layers, None)
        if layer is None and not entry.empty_layer:
            raise CorruptContent(f"history names more layers than the image has: {image.descriptor.digest}")
        steps.append(Step(entry, layer))
    return tuple(steps)


def command_of(image: Seen, label: str, name: str, called: str | None) -> tuple[str, ...]:
    """The command that a label of the image holds, word by word, with IMAGE, NAME and PWD filled in.

    `name` is how the user wrote the image, `called` what a container of it is to be called. No shell reads the text.
    NotFound names the labels there are; InvalidValue for text whose quotes do not end.
    """
    text = image.config.labels.get(label)
    if text is None:
        there = ", ".join(sorted(image.config.labels))
        raise NotFound(f"image has no label {label}: {name}", hint=f"it has: {there}" if there else None)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidValue(f"label {label} is not a command, {str(error).lower()}: {name}") from error
    known = {"IMAGE": name, "NAME": called or name.rpartition("/")[2].partition(":")[0], "PWD": os.getcwd()}
    return tuple(_filled(word, known) for word in words)


def _filled(word: str, known: Mapping[str, str]) -> str:
    """The word with its variables; IMAGE and NAME also stand without a dollar sign, as whole words."""
    if word in ("IMAGE", "NAME"):
        return known[word]
    return re.sub(r"\$(?:\{(IMAGE|NAME|PWD)\}|(IMAGE|NAME|PWD)\b)", lambda found: known[found[1] or found[2]], word)


# Files


def changes(before: Seen, after: Seen) -> Iterator[Change]:
    """The paths in which the images differ, sorted. Layers that both have are read once; nothing is written."""
    known: dict[Digest, tuple[Row, ...]] = {}
    one, other = (_nodes(_tree(image, known)) for image in (before, after))
    for path in sorted({*one, *other}):
        old, new = one.get(path), other.get(path)
        shown = "/" + path.decode(errors="surrogateescape")
        if new is None and old is not None:
            yield Change("D", shown, old.size, 0)
        elif old is None and new is not None:
            yield Change("A", shown, 0, new.size)
        elif old is not None and new is not None and _says(old) != _says(new):
            yield Change("C", shown, old.size, new.size)


def config_changes(before: ImageConfig, after: ImageConfig) -> dict[str, tuple[Any, Any]]:
    """The values in which two configurations differ, by key; None where one has none. Without history and layers."""
    one, other = (_flat(config_to_json(config)) for config in (before, after))
    return {key: (one.get(key), other.get(key)) for key in sorted({*one, *other}) if one.get(key) != other.get(key)}


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in document.items() if key not in ("config", "history", "rootfs")}
    return plain | {f"config.{key}": value for key, value in document.get("config", {}).items()}


def _says(row: Row) -> tuple[object, ...]:
    """All that counts of a file but its name; a directory's time changes with what is put into it."""
    from builda.fs.tar import DIRECTORY

    time = 0 if row.kind == DIRECTORY else row.mtime
    return row.kind, row.mode, row.uid, row.gid, time, row.link, row.major, row.minor, row.size, row.file, row.xattrs


def _tree(image: Seen, known: dict[Digest, tuple[Row, ...]]) -> Tree:
    from builda.fs.lists.layertree import Tree

    tree = Tree()
    for layer in image.manifest.layers:
        if layer.digest not in known:
            known[layer.digest] = tuple(_rows(image.source, layer))
        tree.add(known[layer.digest], str(layer.digest))
    return tree


def _rows(source: ImageSource, layer: Descriptor) -> Iterator[Row]:
    """The entries of a layer. The `file` of a row is the digest of its content."""
    from builda.fs.lists.layertree import read_rows
    from builda.fs.tarread import Member, iter_members

    def hashed(member: Member) -> tuple[str, int] | None:
        hasher = hashlib.sha256()
        while data := member.content.read(_PIECE):
            hasher.update(data)
        return hasher.hexdigest(), 0

    with layer_tar(source, layer) as tar:
        yield from read_rows(iter_members(tar), hashed)


@contextmanager
def layer_tar(source: ImageSource, layer: Descriptor) -> Iterator[Readable]:
    """The uncompressed tar of a layer. The block's end reads the rest of the blob and verifies its digest."""
    from builda.fs.compress import decompressing

    with source.open_blob(layer) as content:
        reader = VerifyingReader(content, layer.digest, layer.size)
        plain = decompressing(reader, mediatype.compression_of(layer.media_type))
        yield plain
        while plain.read(_PIECE):
            pass
        while reader.read(_PIECE):
            pass


def biggest(image: Seen, layer: Descriptor, count: int) -> tuple[tuple[Weight, ...], tuple[Weight, ...]]:
    """The `count` biggest files in a layer of the image, and the directories above them, each with all that it holds.

    The layer is read to its end. Directories below _DEEPEST others are left out.
    """
    import heapq

    from builda.fs.tar import REGULAR, clean
    from builda.fs.tarread import iter_members

    held: dict[bytes, list[int]] = {}

    def weighed(path: bytes, size: int) -> tuple[int, bytes]:
        at = -1
        for _ in range(_DEEPEST):
            total = held.setdefault(path[: max(at, 0)], [0, 0])
            total[0] += size
            total[1] += 1
            if (at := path.find(b"/", at + 1)) < 0:
                break
        return size, path

    with layer_tar(image.source, layer) as tar:
        entries = (member.entry for member in iter_members(tar))
        files = (weighed(clean(entry.name), entry.size) for entry in entries if entry.type == REGULAR)
        found = [(path, size) for size, path in heapq.nlargest(count, files) if size]
    above = sorted(path for path in held if any(file.startswith(path + b"/") or not path for file, _ in found))
    return (
        tuple(Weight(_shown(path), size, 1) for path, size in found),
        tuple(Weight(_shown(path), *held[path]) for path in above),
    )


def _shown(path: bytes) -> str:
    return f"/{path.decode('utf-8', 'surrogateescape')}"


def _nodes(tree: Tree) -> dict[bytes, Row]:
    found: dict[bytes, Row] = {}
    stack: list[tuple[bytes, Node]] = [(b"", tree.root)]
    while stack:
        prefix, node = stack.pop()
        for name, child in node.children.items():
            found[prefix + name] = child.row
            if child.is_directory:
                stack.append((prefix + name + b"/", child))
    return found
