"""`images`, `tag`, `untag`, `exists`, `rmi` and `prune`: images in the store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from builda.cli.core.options import argument, listed, switch, text
from builda.cli.core.output import print_json, print_line, print_rows, say
from builda.cli.core.verb import verb
from builda.cli.format.table import human_age, human_size
from builda.cli.guide import complete
from builda.cli.main import each
from builda.errors import InvalidValue, NotFound
from builda.oci.reference import LOCAL_REGISTRY, in_store
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.cli.format.gofuncs import Struct
    from builda.store.store import Image, Store

NO_NAME = "<none>"
SHORT = 12
"""Digits of an ID that tables show."""

_HEADINGS = {
    "Name": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "Created": "CREATED",
    "CreatedAt": "CREATED",
    "CreatedAtRaw": "CREATED",
    "Size": "SIZE",
    "ReadOnly": "R/O",
    "History": "HISTORY",
}


class Row(NamedTuple):
    """One line of the table: an image under one of its names."""

    image: Image
    name: str
    tag: str


@verb(
    argument("name", required=False, complete=complete.images),
    switch("--all", "-a", "everything", help="Also list intermediate images, as is always done."),
    switch("--digests", help="Add the digests."),
    listed(
        "--filter",
        "-f",
        "filters",
        metavar="KEY=VALUE,…",
        help="Only those that since, before, dangling, label, reference … select.",
    ),
    text(
        "--format",
        "template",
        metavar="TEMPLATE",
        help="Print each through a Go template, as in '{{.ID}} {{.Name}}:{{.Tag}}'.",
    ),
    switch("--history", help="Add former names; builda remembers none."),
    switch("--json", help="Print JSON."),
    switch("--no-trunc", help="Print whole IDs."),
    switch("--noheading", "-n", help="Print no headings."),
    switch("--quiet", "-q", help="Print IDs only."),
    example="builda images --filter dangling=true --quiet",
)
def images(
    session: Session, *, name: str | None, everything: bool, filters: tuple[str, ...], json: bool, **values: Any
) -> None:
    """List images, newest first, one line for each name.

    SIZE is what an image takes in a registry: the bytes of its layers as they are stored, compressed. JSON has these
    as compressedbytes, and the bytes of all its files as unpackedbytes, or null while it is not unpacked here."""
    if everything and name is not None:
        raise InvalidValue("--all cannot be used with a name or ID of an image")
    if values["quiet"] and values["template"] is not None:
        raise InvalidValue("--quiet cannot be used with --format")
    found = tuple(_selected(session.store, name, filters))
    whole = values["no_trunc"]
    if json:
        print_json([_as_json(session.store, image, whole) for image in found])
    elif values["template"] is not None:
        print_rows(values["template"], _structs(found, whole), _HEADINGS)
    elif values["quiet"]:
        for image in found:
            print_line(_identity(image, whole))
    else:
        _print_table(found, whole, **{key: values[key] for key in ("digests", "history", "noheading")})


def _named(store: Store, name: str) -> tuple[Image, ...]:
    """The images of a repository, whatever their tags, when NAME is one; else the image that it means."""
    repository = tuple(
        image
        for image in store.images.iter()
        if any(known.rpartition(":")[0] in (name, f"{LOCAL_REGISTRY}/{name}") for known in image.names)
    )
    return repository or (store.image(name),)


def _selected(store: Store, name: str | None, filters: tuple[str, ...]) -> Iterator[Image]:
    found = store.images.iter() if name is None else _named(store, name)
    if not filters:
        return iter(found)
    from builda.cli.format.filters import condition

    return filter(condition(filters, store, time.time()), found)


def _identity(image: Image, whole: bool) -> str:
    return str(image.id) if whole else image.id.encoded[:SHORT]


def _rows(found: Iterable[Image]) -> Iterator[Row]:
    for image in found:
        for name in image.names or (NO_NAME,):
            if "@" in name:  # pulled by its digest
                yield Row(image, name.partition("@")[0], NO_NAME)
                continue
            repository, colon, tag = name.rpartition(":")
            named = bool(colon) and "/" not in tag
            yield Row(image, repository if named else name, tag if named else NO_NAME)


def _print_table(found: Iterable[Image], whole: bool, *, digests: bool, history: bool, noheading: bool) -> None:
    from builda.cli.core.output import print_table

    now = time.time()
    columns = ["Name", "Tag", *(["Digest"] if digests else []), "ID", "CreatedAt", "Size"]
    columns += ["History"] if history else []
    lines = [] if noheading else ["\t".join(_HEADINGS[column] for column in columns)]
    for row in _rows(found):
        cells = _cells(row, whole, now)
        lines.append("\t".join(str(cells[column]) for column in columns))
    print_table(lines)


def _cells(row: Row, whole: bool, now: float) -> Mapping[str, Any]:
    image = row.image
    return {
        "Name": row.name,
        "Tag": row.tag,
        "Digest": str(image.digest),
        "ID": _identity(image, whole),
        "CreatedAt": human_age(now - image.created),
        "Size": human_size(image.size),
        "History": NO_NAME,
    }


def _structs(found: Iterable[Image], whole: bool) -> Iterator[Struct]:
    from builda.cli.format.gofuncs import Struct

    now = time.time()
    for row in _rows(found):
        yield Struct(
            {
                **_cells(row, whole, now),
                "Created": int(row.image.created),
                "CreatedAtRaw": _moment(row.image.created).replace("T", " ").replace("Z", " +0000 UTC"),
                "ReadOnly": False,
            }
        )


def _as_json(store: Store, image: Image, whole: bool) -> Mapping[str, Any]:
    return {
        "id": _identity(image, whole),
        "names": list(image.names) or None,
        "digest": str(image.digest),
        "createdat": human_age(time.time() - image.created),
        "size": human_size(image.size),
        "created": int(image.created),
        "createdatraw": _moment(image.created),
        "readonly": False,
        "history": None,
        "compressedbytes": image.size,
        "unpackedbytes": store.unpacked_size(image),
    }


def _moment(seconds: float) -> str:
    from datetime import UTC, datetime

    text_ = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return text_.rstrip("0").rstrip(".") + "Z"


@verb(
    argument("image", complete=complete.images),
    argument("names", nargs=-1, required=True),
    interspersed=True,
    example="builda tag app:1 registry.example.org/app:1 registry.example.org/app:latest",
)
def tag(session: Session, *, image: str, names: tuple[str, ...]) -> None:
    """Give an image further names.

    A name without a registry is localhost's, one without a tag gets latest."""
    from builda.oci.reference import LOCAL_REGISTRY, Reference

    found = session.store.image(in_store(image))
    for name in [str(Reference.parse(name, default_registry=LOCAL_REGISTRY)) for name in names]:
        if "@" in name:
            raise InvalidValue(f"a name given to an image cannot hold a digest: {name}")
        session.store.images.tag(found, name)


@verb(
    argument("image", complete=complete.images),
    argument("names", nargs=-1, complete=complete.images),
    interspersed=True,
    example="builda untag app:1 registry.example.org/app:latest",
)
def untag(session: Session, *, image: str, names: tuple[str, ...]) -> None:
    """Take names off an image, all of them if none is given.

    The image stays in the store without a name until rmi or prune removes it."""
    found = session.store.image(in_store(image))
    known = [(name, session.store.images.full_name(in_store(name))) for name in names]
    for name, full in known:
        if full not in found.names:
            raise NotFound(f"image has no such name: {name}", hint=f"it has: {' '.join(found.names) or 'none'}")
    for full in dict(known).values() if names else found.names:
        session.store.images.untag(full or "")


@verb(
    argument("name", complete=complete.objects),
    text("--type", "-t", "kind", metavar="KIND", default="any", help="Look for an image or a container only."),
    interspersed=True,
    example="builda exists registry.example.org/app:1 || builda pull registry.example.org/app:1",
)
def exists(session: Session, *, name: str, kind: str) -> None:
    """Say by the exit status whether the store has a working container or an image of this name or ID.

    0 means yes, 1 no, 125 that this could not be found out. Nothing is printed."""
    if kind not in ("any", "image", "container"):
        raise InvalidValue(f"unknown type: {kind}", hint="there are image and container")
    store = session.store
    is_container = kind != "image" and store.containers.find(name) is not None
    if not is_container and (kind == "container" or store.find_image(in_store(name)) is None):
        raise SystemExit(1)


@verb(
    argument("images", nargs=-1, complete=complete.images),
    switch("--all", "-a", "everything", help="Remove every image that no working container stands on."),
    switch(
        "--force", "-f", help="Remove the working containers that stand on it and its mounts first, and all its names."
    ),
    switch("--prune", "-p", help="Remove the images that have no name."),
    example="builda rmi registry.example.org/app:1",
)
def rmi(session: Session, *, images: tuple[str, ...], everything: bool, force: bool, prune: bool) -> None:
    """Take names off images, and remove those that have none left.

    An ID means all names of its image. Names that were taken off are printed, then the IDs of removed images."""
    if sum((bool(images), everything, prune)) > 1:
        raise InvalidValue("names of images, --all and --prune exclude each other")
    if not (images or everything or prune):
        raise InvalidValue("no image to be removed was named", hint="name some, or use --all or --prune")
    untagged: list[str] = []
    deleted: list[str] = []

    def remove(written: str) -> None:
        name = in_store(written)
        if force:
            _remove_containers(session, name)
        removal = session.store.remove_image(name, force=force, sweep=False)
        untagged.extend(removal.untagged)
        deleted.extend(removal.deleted)

    try:
        each(images or tuple(_removable(session.store, unnamed_only=prune, force=force)), remove)
    finally:
        print_removal(untagged, deleted)
        if deleted:
            session.store.sweep()


def _removable(store: Store, *, unnamed_only: bool, force: bool) -> Iterator[str]:
    """The images that --all or --prune removes; --all names those in use by digest: Buildah refuses them, too."""
    used = {container.image_digest for container in store.containers.iter()}
    used.update(mount.image for mount in store.image_mounts.iter())
    for image in store.images.iter():
        if image.digest in used and not force:
            if not unnamed_only:
                yield str(image.digest)
        elif not (unnamed_only and image.names):
            yield from image.names or (str(image.digest),)


def _remove_containers(session: Session, name: str) -> None:
    digest = session.store.image(name).digest
    for container in session.store.containers.iter():
        if container.image_digest == digest:
            session.builder.remove(container)
    if any(mount.image == digest for mount in session.store.image_mounts.seen()):
        session.builder.umount_image(session.store.image(name), force=True)


def print_removal(untagged: Iterable[str], deleted: Iterable[str]) -> None:
    for name in untagged:
        print_line(f"untagged: {name}")
    for identity in deleted:
        print_line(identity)


@verb(
    switch("--all", "-a", "everything", help="Also remove images that have a name and no working container."),
    switch("--force", "-f", help="Also remove the working containers that stand on what is removed."),
    listed(
        "--filter", "filters", metavar="until=TIME,…", help="Only what is older: a duration, a date or a time stamp."
    ),
    switch("--quiet", "-q", help="Do not say how much was freed."),
    interspersed=True,
    example="builda prune --all --filter until=72h",
)
def prune(session: Session, *, everything: bool, force: bool, filters: tuple[str, ...], quiet: bool) -> None:
    """Remove what nothing needs.

    That is images without a name, caches, and whatever killed commands left behind. With --filter until=TIME images
    that were made, and caches that were last used, after TIME stay. How many bytes were
    freed is said on a terminal."""
    from builda.cli.format.filters import moment_of_prune

    until = moment_of_prune(filters, time.time()) if filters else None
    removal = session.builder.prune(all_images=everything, force=force, until=until)
    print_removal(removal.untagged, removal.deleted)
    if not quiet:
        say(f"freed {human_size(removal.freed)}", to_people_only=True)
