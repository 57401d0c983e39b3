"""`image mount` and `umount`: files of images, read-only."""

from __future__ import annotations

from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import print_json, print_line
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.cli.main import each
from builda.cli.verbs.containers import check_can_stay
from builda.errors import InvalidValue
from builda.oci.reference import in_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.store.store import Image

_JSON = switch("--json", help="Print JSON.")


@verb(
    argument("names", nargs=-1, complete=complete.images),
    switch("--all", "-a", "everything", help="Mount every image of the store."),
    text("--format", metavar="FORMAT", help="json prints JSON."),
    _JSON,
    name="image-mount",
    interspersed=True,
    example="m=$(builda image mount app:1)",
)
def mount(session: Session, *, names: tuple[str, ...], everything: bool, json: bool, **values: Any) -> None:
    """Mount stored images read-only, and print where.

    An image stays mounted until it is unmounted as often as it was mounted, or a reboot; no prune or rmi removes it
    meanwhile. Without a name, list what is mounted. Without root, this works inside `builda unshare` only, and mounts
    end with it. Where nothing can be mounted, the path is that of a copy.
    """
    if everything and names:
        raise InvalidValue("--all cannot be used with names of images")
    if values["format"] not in (None, "json"):
        raise InvalidValue(f"unknown format: {values['format']}", hint="json is the only one")
    if names or everything:
        check_can_stay(session, "image mount IMAGE")
        chosen = [_stored_for_machine(session, name) for name in names] if names else list(_mountable(session))
        mounted = [(image, str(session.builder.mount_image(image))) for image in chosen]
    else:
        store = session.store
        mounted = [
            (image, one.place) for one in store.image_mounts.seen() if (image := store.find_image(str(one.image)))
        ]
    if json or values["format"] == "json":
        print_json(
            [{"id": image.id.encoded, "names": list(image.names), "mountpoint": path} for image, path in mounted]
        )
        return
    for image, path in mounted:
        print_line(path if len(names) == 1 else f"{image.names[0] if image.names else image.id.encoded} {path}")


def _stored_for_machine(session: Session, name: str) -> Image:
    """The stored image of this name; of a list, the one for this machine."""
    from builda.builder.imageoptions import PullOptions

    found = session.store.image(in_store(name))
    return session.builder.pull(str(found.digest), PullOptions(policy="never")) if found.is_index else found


def _mountable(session: Session) -> Iterator[Image]:
    """The images of the store, without lists and artifacts."""
    from builda.oci import mediatype

    for image in session.store.images.iter():
        if not image.is_index and image.manifest.config.media_type in mediatype.CONFIGS:
            yield image


@verb(
    argument("names", nargs=-1, complete=complete.images),
    switch("--all", "-a", "everything", help="Unmount every image."),
    switch("--force", "-f", help="Unmount images however often they were mounted."),
    _JSON,
    name="image-umount",
    interspersed=True,
    example="builda image umount app:1",
)
def umount(session: Session, *, names: tuple[str, ...], everything: bool, force: bool, json: bool) -> None:
    """Undo one `image mount` of each image, and print the IDs of what was mounted."""
    if everything and names:
        raise InvalidValue("--all cannot be used with names of images")
    if not everything and not names:
        raise InvalidValue("no image to be unmounted was named", hint="name some, or use --all")
    store = session.store
    unmounted: list[dict[str, str]] = []
    mounted = [str(one.image) for one in store.image_mounts.seen()] if everything else []

    def unmount(name: str) -> None:
        image = store.image(name) if everything else _stored_for_machine(session, name)
        if session.builder.umount_image(image, force=force):
            unmounted.append({"id": image.id.encoded})
            if not json:
                print_line(image.id.encoded)

    try:
        each(names or mounted, unmount)
    finally:
        if json:
            print_json(unmounted)
