"""`containers`, `rm`, `rename`, `mount` and `umount`: working containers as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import print_json, print_line, print_rows
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.cli.main import each
from builda.cli.verbs import scriptcache
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.store.containers import WorkingContainer

NAME_WIDTH = 32
"""Characters of an image's name that the table shows."""

_HEADINGS = {
    "ContainerID": "CONTAINER ID",
    "Builder": "BUILDER",
    "ImageID": "IMAGE ID",
    "ImageName": "IMAGE NAME",
    "ContainerName": "CONTAINER NAME",
}
_SHORT = "{:<12.12}  {:<8} {:<12.12} {:<32} {}"
_LONG = "{:<64} {:<8} {:<64} {:<32} {}"


@verb(
    switch("--all", "-a", "everything", help="List all; builda's store holds no others."),
    text("--filter", "-f", "filters", metavar="KEY=VALUE,…", help="Only those with this id, name or ancestor."),
    text(
        "--format", "template", metavar="TEMPLATE", help="Print each through a Go template, as in '{{.ContainerName}}'."
    ),
    switch("--json", help="Print JSON."),
    switch("--noheading", "-n", help="Print no headings."),
    switch("--notruncate", help="Print whole IDs."),
    switch("--quiet", "-q", help="Print IDs only."),
    interspersed=True,
    example="builda containers --format '{{.ContainerName}} {{.ImageName}}'",
)
def containers(session: Session, *, everything: bool, filters: str | None, json: bool, **values: Any) -> None:
    """List working containers with the images they were made from."""
    if values["quiet"] and values["template"] is not None:
        raise InvalidValue("--quiet cannot be used with --format")
    conditions = _conditions(filters)
    found = [one for one in session.store.containers.iter() if all(meets(one) for meets in conditions)]
    if json:
        print_json([_as_json(one) for one in found] or None)
    elif values["template"] is not None:
        _print_formatted(values["template"], found)
    elif values["quiet"]:
        for one in found:
            print_line(one.id)
    else:
        _print_table(found, heading=not values["noheading"], truncate=not values["notruncate"])


def _as_json(container: WorkingContainer) -> dict[str, Any]:
    return {
        "id": container.id,
        "builder": True,
        "imageid": _image_id(container),
        "imagename": _image_name(container),
        "containername": container.name,
    }


def _image_id(container: WorkingContainer) -> str:
    return container.image_id.encoded if container.image_id is not None else ""


def _image_name(container: WorkingContainer) -> str:
    return container.image or "scratch"


def _cells(container: WorkingContainer) -> tuple[str, str, str, str, str]:
    return container.id, "   *", _image_id(container), _image_name(container), container.name


def _print_formatted(template: str, found: Iterable[WorkingContainer]) -> None:
    from builda.cli.format.gofuncs import Struct

    print_rows(template, (Struct(dict(zip(_HEADINGS, _cells(one), strict=True))) for one in found), _HEADINGS)


def _print_table(found: Iterable[WorkingContainer], *, heading: bool, truncate: bool) -> None:
    line = _SHORT if truncate else _LONG
    if heading:
        print_line(line.format(*_HEADINGS.values()))
    for one in found:
        identity, builder, image_id, image, name = _cells(one)
        if truncate and len(image) > NAME_WIDTH:
            image = image[: NAME_WIDTH - 3] + "..."
        print_line(line.format(identity, builder, image_id, image, name))


def _conditions(filters: str | None) -> tuple[Callable[[WorkingContainer], bool], ...]:
    return tuple(_condition(part) for part in (filters or "").split(",") if part)


def _condition(part: str) -> Callable[[WorkingContainer], bool]:
    key, equals, value = part.partition("=")
    match key if equals else "":
        case "id":
            return lambda container: container.id.startswith(value)
        case "name":
            return lambda container: value in container.name
        case "ancestor":
            return lambda container: (
                bool(value) and (_image_id(container).startswith(value) or _is_named(_image_name(container), value))
            )
        case _:
            raise InvalidValue(f"invalid filter: {part}", hint="there are id=, name= and ancestor=")


def _is_named(image: str, name: str) -> bool:
    return image.endswith(name) or image.rpartition(":")[0].endswith(name)


@verb(
    argument("containers", nargs=-1, complete=complete.containers),
    switch("--all", "-a", "everything", help="Remove every working container."),
    example="builda rm $c",
)
def rm(session: Session, *, containers: tuple[str, ...], everything: bool) -> None:
    """Remove working containers, and print their IDs.

    What can be removed is, whatever becomes of the others."""
    chosen: Iterable[Any] = _chosen(session, containers, everything, "removed")

    def remove(name: str) -> None:
        container = session.container(name)
        scriptcache.push(session, container)
        if not (session.keeps_failed and _waits_for_the_end(session, container)):
            session.builder.remove(container)
        print_line(container.id)

    each(chosen, remove)


def _waits_for_the_end(session: Session, container: WorkingContainer) -> bool:
    """Whether a container stays until the session ends, as its last step failed; its name is free."""
    from builda.store import failedsteps

    if not failedsteps.is_noted(session.store.layout, container.id):
        return False
    if not container.name.startswith(failedsteps.PREFIX):
        session.store.containers.rename_freely(container, failedsteps.PREFIX)
    return True


def _chosen(session: Session, names: Sequence[str], everything: bool, what: str) -> tuple[str, ...]:
    if everything and names:
        raise InvalidValue("--all cannot be used with names of containers")
    if not everything and not names:
        raise InvalidValue(f"no container to be {what} was named", hint="name some, or use --all")
    return tuple(one.id for one in session.store.containers.iter()) if everything else tuple(names)


@verb(
    argument("old", complete=complete.containers),
    argument("new"),
    interspersed=True,
    example="builda rename working-container base",
)
def rename(session: Session, *, old: str, new: str) -> None:
    """Give a working container another name."""
    container = session.container(old)
    if container.name == new:
        raise InvalidValue(f"renaming a container with the same name as its current name: {new}")
    session.store.rename(container, new)


@verb(
    argument("containers", nargs=-1, complete=complete.containers),
    switch("--json", help="Print JSON."),
    switch("--notruncate", hidden=True, help="Accepted: paths are never cut."),
    example="m=$(builda mount $c)",
)
def mount(session: Session, *, containers: tuple[str, ...], json: bool, notruncate: bool) -> None:
    """Mount working containers, and print where.

    They stay mounted until umount, rm or a reboot. Without a name, list what is mounted. Without root, mount works
    inside `builda session` and `builda unshare` only, and ends with it.
    """
    if containers:
        check_can_stay(session, "mount CONTAINER")
        targets = [session.container(name) for name in containers]
        mounted = [(one.name, str(session.builder.mount(one))) for one in targets]
    else:
        from builda.builder.mounting import mounted_at

        mounted = [(one.name, path) for one in session.store.containers.iter() if (path := mounted_at(one))]
    single = len(containers) == 1
    if json:
        named = [{"mountPoint": path} if single else {"container": name, "mountPoint": path} for name, path in mounted]
        print_json(named or None)
        return
    for name, path in mounted:
        print_line(path if single else f"{name} {path}")


def check_can_stay(session: Session, verb: str) -> None:
    """Unsupported where a mount would end with this very command."""
    if session.mode.mounts_stay:
        return
    if not session.mode.mounts:  # nothing is mounted: it is the tree's own path
        session.enter()
        return
    from builda.errors import Unsupported

    raise Unsupported(
        f"mode {session.mode} can show a mount only inside builda session and builda unshare",
        hint=f"""run the whole script so: builda session ./SCRIPT; or: builda unshare sh -c 'm=$(builda {verb})'""",
    )


@verb(
    argument("containers", nargs=-1, complete=complete.containers),
    switch("--all", "-a", "everything", help="Unmount every working container."),
    example="builda umount $c",
)
def umount(session: Session, *, containers: tuple[str, ...], everything: bool) -> None:
    """Undo mount, and print the IDs of what was mounted."""
    chosen = _chosen(session, containers, everything, "unmounted")

    def unmount(name: str) -> None:
        container = session.container(name)
        if session.builder.umount(container):
            print_line(container.id)

    each(chosen, unmount)
