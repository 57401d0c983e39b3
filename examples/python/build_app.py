"""Build an image with builda's Python API: a base, a command, files, settings, a commit. Run as root.

    python examples/python/build_app.py BASE DESTINATION

BASE is any image with a shell (`docker.io/library/busybox`, `oci-archive:busybox.tar`), DESTINATION a name for the
store, or a place with a transport (`docker://registry.example.org/app:1`, `oci:/srv/images:app`).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import builda
from builda import CommitOptions, Configure, Copy, Inputs, Run, edits
from builda.events import Event, Warned

PROGRAM = """#!/bin/sh
echo "hello from $MODE, built by $(cat /etc/built-by)"
"""


def observe(event: Event) -> None:
    """Everything that takes time reports here; this script only wants to hear warnings."""
    if isinstance(event, Warned):
        print(f"warning: {event.message}", file=sys.stderr)


def build(base: str, destination: str, context: Path) -> str:
    """The ID of the image, which has the name `destination`."""
    with builda.open_builder(emit=observe) as builder:
        container = builder.from_image(base)
        try:
            builder.run(container, Run(args=("sh", "-c", "echo builda > /etc/built-by")))
            files = Copy(sources=("app",), destination="/srv/app/", chown="1000:1000", chmod="0755")
            builder.copy(container, files, inputs=Inputs(context=context))
            settings = (
                edits.SetEnv("MODE", "production"),
                edits.SetLabel("org.opencontainers.image.title", "app"),
                edits.SetText("working_dir", "/srv/app"),
                edits.SetText("user", "1000:1000"),
                edits.SetCmd(("./main.sh",)),
            )
            builder.config(container, Configure(edits=settings))
            builder.run(container, Run(args=("./main.sh",), env=(("MODE", "a test"),)))
            return builder.commit(container, CommitOptions(destination=destination)).id.encoded
        finally:
            builder.remove(container)


def main() -> int:
    """Build from a context made on the spot; failures are builda's own exceptions, with a hint where there is one."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        context = Path(directory)
        (context / "app").mkdir()
        (context / "app/main.sh").write_text(PROGRAM)
        try:
            print(build(sys.argv[1], sys.argv[2], context))
        except builda.BuildaError as error:
            print(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
            return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
