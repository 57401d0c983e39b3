"""`inspect`: a working container, an image or a manifest list as JSON or through a template."""

from __future__ import annotations

from builda.cli.core.options import argument, text
from builda.cli.core.output import print_json, print_template
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.errors import InvalidValue, NotFound
from builda.oci.reference import in_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session

_KINDS = ("container", "image", "manifest")


@verb(
    argument("name", complete=complete.objects),
    text(
        "--format",
        "-f",
        "template",
        metavar="TEMPLATE",
        help="Print through a Go template, as in '{{.OCIv1.Config.Env}}'.",
    ),
    text("--type", "-t", "kind", metavar="TYPE", default="container", help="container (default), image or manifest."),
    example="builda inspect --type image --format '{{.FromImageDigest}}' app:1",
)
def inspect(session: Session, *, name: str, template: str | None, kind: str) -> None:
    """Print what is known of a working container or an image.

    A name that is no container's may be an image's or a manifest list's; with --type image or manifest only those are
    looked for.
    """
    if kind not in _KINDS:
        raise InvalidValue(f"unknown type: {kind}", hint=f"it is {', '.join(_KINDS)}")
    found = _found(session, name, kind)
    if template is not None:
        print_template(template, found, example="{{.FromImage}}")
    else:
        print_json(getattr(found, "shown", found))


def _found(session: Session, name: str, kind: str) -> Any:
    from builda.cli.verbs import inspection

    store = session.store
    container = store.containers.find(name) if kind == "container" else None
    if container is not None:
        digest = container.image_digest
        return inspection.of_container(container, None if digest is None else store.find_image(str(digest)))
    image = store.find_image(in_store(name))
    if image is None:
        raise _missing(session, name, kind)
    if image.is_index or kind == "manifest":
        return inspection.manifest_of(image)
    return inspection.of_image(image)


def _missing(session: Session, name: str, kind: str) -> NotFound:
    """The error for a name that nothing has, with the nearest existing name as a hint."""
    from difflib import get_close_matches

    names = [one for image in session.store.images.iter() for one in image.names]
    known = {form: one for one in names for form in (one, one.rpartition("/")[2], one.rpartition("/")[2].split(":")[0])}
    if kind == "container":
        known |= {container.name: container.name for container in session.store.containers.iter()}
    near = get_close_matches(name, known, 1, 0.7)
    what = "container or image" if kind == "container" else kind
    return NotFound(f"{what} not known: {name}", hint=f"did you mean {known[near[0]]}?" if near else None)
