"""`image exists` and `runlabel`, and the verbs of the group `image` that are verbs of builda, too."""

from __future__ import annotations

from builda.cli.core import shared_options
from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import print_json, print_line
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.cli.verbs import images, pull_push
from builda.errors import InvalidValue
from builda.oci.reference import in_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session

_JSON = switch("--json", help="Print JSON.")


@verb(
    argument("image", complete=complete.images),
    name="image-exists",
    interspersed=True,
    example="builda image exists app:1 || builda image pull app:1",
)
def exists(session: Session, *, image: str) -> None:
    """Say by the exit status whether the store has an image or list of this name or ID.

    0 means yes, 1 no, 125 that this could not be found out. Nothing is printed."""
    if session.store.find_image(in_store(image)) is None:
        raise SystemExit(1)


@verb(
    argument("label"),
    argument("image", complete=complete.images),
    argument("arguments", nargs=-1),
    switch("--run", help="Run the command on this machine, with the rights of builda's caller."),
    switch("--display", hidden=True, help="Print the command, as is done without --run."),
    text("--name", "called", metavar="NAME", help="What NAME stands for (default: the image's name)."),
    _JSON,
    shared_options.PLATFORM,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-runlabel",
    checks_order=False,
    example="builda image runlabel install registry.example.org/app:1",
)
def runlabel(
    session: Session, *, label: str, image: str, arguments: tuple[str, ...], run: bool, json: bool, **values: Any
) -> None:
    """Print the command that a label of an image holds, with IMAGE, NAME and PWD filled in and ARGUMENTS behind it.

    With --run it is run, on this machine and not in a container: only for images that may do what their caller may. No
    shell reads it.
    """
    import shlex
    import subprocess

    from builda.builder.image import describe

    values.pop("display")
    called, platform, ctx = values.pop("called"), shared_options.platform_here(values), session.builder.context
    seen = describe.seen(ctx, image, shared_options.registry_access(values, session.environ), platform)
    command = [*describe.command_of(seen, label, image, called), *arguments]
    if not run:
        print_json(command) if json else print_line(shlex.join(command))
        return
    if not command:
        raise InvalidValue(f"label is empty: {label}")
    raise SystemExit(subprocess.run(command, check=False).returncode)


listing = images.images._replace(name="image-list", example="builda image list --digests")
pull = pull_push.pull._replace(name="image-pull", example="builda image pull docker.io/library/debian:bookworm")
push = pull_push.push._replace(name="image-push", example="builda image push app:1 registry.example.org/app:1")
rm = images.rmi._replace(name="image-rm", example="builda image rm app:1")
tag = images.tag._replace(name="image-tag", example="builda image tag app:1 registry.example.org/app:1")
untag = images.untag._replace(name="image-untag", example="builda image untag app:1 registry.example.org/app:1")
