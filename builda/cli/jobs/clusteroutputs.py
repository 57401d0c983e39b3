"""`build --on --output`: files and directories on this machine, made of the image that the pod pushed."""

from __future__ import annotations

import os

from builda.cli.building import outputs
from builda.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.building.outputs import Output
    from builda.cli.core.verbsession import Session
    from builda.events import ImageBuilt


def taken(values: dict[str, Any]) -> tuple[Output, ...]:
    """The outputs that are written here, which `values` lose; the pod sees to the others.

    Unsupported if there is no image to make them of, NotFound if one cannot be written.
    """
    found = outputs.parse(values["output"])
    here = tuple(output for output in found if output.dest)
    if not here or len(values["platform"]) > 1:  # which are refused by their names
        return ()
    if not values["tag"]:
        raise Unsupported(
            "--output of a build in a cluster needs a name to push the image to",
            hint="write -t HOST/NAME",
        )
    if values["detach"]:
        raise Unsupported("--output cannot be used with --detach, which leaves before there is an image")
    outputs.check(here)
    values["output"] = tuple(item for item, one in zip(values["output"], found, strict=True) if not one.dest)
    values["quiet"] = values["quiet"] or bool(words_for(here))
    return here


def words_for(found: Sequence[Output]) -> tuple[str, ...]:
    """The options that keep the pod from printing an ID, if an output takes standard output."""
    return (f"--iidfile={os.devnull}",) if any(output.dest == outputs.STDOUT for output in found) else ()


def write(
    session: Session,
    found: Sequence[Output],
    image: ImageBuilt,
    values: Mapping[str, Any],
    access: RegistryAccess,
) -> None:
    """Fetch the image that a pod pushed, and write the outputs that were `taken`."""
    from builda.builder.imageoptions import PullOptions
    from builda.cli.core import shared_options
    from builda.oci.reference import Reference

    if not found:
        return
    (platform,) = shared_options.platforms({name: values[name] for name in ("platform", "os", "arch", "variant")})
    pushed = Reference.parse(values["tag"][0].removeprefix("docker://"))._replace(tag=None, digest=image.digest)
    stored = session.builder.pull(str(pushed), PullOptions(platform=platform, access=access))
    for output in found:
        outputs.write(session, stored, output, image.names[0] if image.names else None, access)
