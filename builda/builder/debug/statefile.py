"""The state that a failed step left, as one file: an OCI archive of the container, with the step in an annotation.

The archive is an image like others, so any tool can look into it. What the step had of the machine that it failed on
(secrets, agents, devices, directories) is not in it.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from builda.builder.debug.keptstep import KeptStep, from_text, to_json
from builda.builder.imageoptions import CommitOptions, FromOptions, PullOptions, RegistryAccess
from builda.errors import InUse, InvalidValue, NotFound
from builda.events import Warned
from builda.oci.config import check_hostname
from builda.plan import PROXIES, NamedContext, RunOptions
from builda.plan import Context as BuildContext
from builda.values import replace, values_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.plan import RunMount
    from builda.store.containers import WorkingContainer

KEY = "io.builda.failed-step"
"""The annotation that holds the step."""
_LIMIT = 1 << 20


def write(ctx: Context, container: WorkingContainer, kept: KeptStep, path: str) -> None:
    """Write the container's image and the step to the file `path`, which is whole or as before.

    The image has the layers of the base and one of what was changed; a single one if the base's are not here any more.
    """
    from builda.builder.image.commit import commit
    from builda.builder.image.push import write_to
    from builda.builder.materialize import quietly
    from builda.transfer.locate import Location

    ctx = replace(ctx, emit=quietly(ctx.emit))
    options = CommitOptions(
        format="oci", squash=not _has_base(ctx, container), annotations=((KEY, json.dumps(_to_take_along(kept))),)
    )
    image = commit(ctx, container, options)
    try:
        write_to(ctx, image, Location("oci-archive", os.path.abspath(path)), RegistryAccess())
    finally:
        _drop(ctx, str(image.digest))


def _has_base(ctx: Context, container: WorkingContainer) -> bool:
    digest = container.image_digest
    image = None if digest is None else ctx.store.find_image(str(digest))
    return digest is None or (
        image is not None and all(ctx.store.blobs.has(layer.digest) for layer in image.manifest.layers)
    )


def _drop(ctx: Context, digest: str) -> None:
    """Remove an image that nothing names and nothing stands on."""
    with suppress(InUse, NotFound):
        if not ctx.store.image(digest).names:
            ctx.store.remove_image(digest)


def _to_take_along(kept: KeptStep) -> dict[str, object]:
    """The step as the file has it, without paths, proxies and names of containers of this machine."""
    run = kept.run
    env = tuple((name, value) for name, value in run.env if name not in PROXIES)
    return to_json(kept._replace(run=replace(run, env=env), context=None, named=()))


def read(ctx: Context, path: str) -> tuple[WorkingContainer, KeptStep]:
    """A new working container with the state in a file that `write` made, and the step.

    The file may come from strangers: of what the step had, only what reaches nothing of this machine is taken, and a
    warning names the rest. InvalidValue for an archive without a step, and what a pull raises for a broken one.
    """
    from builda.builder.debug.keeping import note
    from builda.builder.from_image import from_image
    from builda.builder.materialize import quietly
    from builda.store.failedsteps import PREFIX

    check_path(path)
    ctx = replace(ctx, emit=quietly(ctx.emit))
    options = FromOptions(suffix=PREFIX, pull=PullOptions(policy="always"))
    container = from_image(ctx, f"oci-archive:{os.path.abspath(path)}", options)
    try:
        kept = _harmless(ctx, _step_in(ctx, container, path))
        note(ctx, container, kept)
        return ctx.store.containers.rename_freely(container, PREFIX), kept
    except BaseException:
        remove(ctx, container)
        raise


def check_path(path: str) -> None:
    """InvalidValue for a path that cannot be the file of a state."""
    if ":" in os.path.abspath(path):
        raise InvalidValue(f"the path of an archive cannot have a colon: {path}", hint="give the file another name")


def remove(ctx: Context, container: WorkingContainer) -> None:
    """Remove a container that `read` made, with its image unless that has a name."""
    from builda.builder.removal import remove

    remove(ctx, container)
    if container.image_digest is not None:
        _drop(ctx, str(container.image_digest))


def _step_in(ctx: Context, container: WorkingContainer, path: str) -> KeptStep:
    nothing = InvalidValue(
        f"file holds an image, but no state of a failed step: {path}",
        hint="builda debug --export FILE writes one; builda from oci-archive:FILE takes any image",
    )
    if container.image_digest is None:
        raise nothing
    text = ctx.store.image(str(container.image_digest)).manifest.annotations.get(KEY)
    if text is None or len(text) > _LIMIT:
        raise nothing
    try:
        return from_text(text)
    except InvalidValue as error:
        raise nothing from error


def _harmless(ctx: Context, kept: KeptStep) -> KeptStep:
    """The step without options and mounts that would reach this machine. Warns of what is left out."""
    run = kept.run
    left_out: list[str] = []
    said = {name: value for name, value in values_of(run.options).items() if value not in (None, (), "")}
    hostname, network = said.pop("hostname", None), said.pop("network", None)
    check_hostname(hostname if isinstance(hostname, str) else "", "host name in the file")
    said.pop("terminal", None)
    left_out += [f"--{name.replace('_', '-')}" for name in sorted(said)]
    if network not in (None, "none"):
        left_out.append("--network")
    mounts: list[RunMount] = []
    for mount in run.mounts:
        if mount.type == "cache":  # an id may be that of a cache of this machine's user
            mounts.append(replace(_emptied(mount), type="tmpfs"))
        elif mount.type == "bind" and not isinstance(mount.from_, BuildContext | NamedContext):
            left_out.append(f"what was mounted at {mount.target}")
        else:
            mounts.append(mount)
    if left_out:
        hint = "give on the command line what you trust the file with"
        ctx.emit(Warned(message=f"not taken from the file: {', '.join(left_out)}", hint=hint))
    options = RunOptions(
        hostname=hostname if isinstance(hostname, str) else None, network="none" if network == "none" else None
    )
    taken = replace(run, options=options, mounts=tuple(mounts))
    return kept._replace(run=taken, context="", named=())


def _emptied(mount: RunMount) -> RunMount:
    return replace(mount, id="", source="", from_=BuildContext(), sharing="shared", uid=None, gid=None)
