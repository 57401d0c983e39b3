"""Build an image in a session: what the script makes is gone when it ends, and the name counts only if it succeeds.

    python examples/python/session.py BASE NAME

Run as root; a plain user runs `builda session python3 examples/python/session.py BASE NAME`.
"""

from __future__ import annotations

import sys

import builda
from builda import edits


def build(base: str, name: str) -> str:
    """The ID of the image. An exception leaves nothing behind."""
    with builda.session() as s:
        build_container, final = s.from_(base), s.from_(base)
        s.run(build_container, "sh", "-c", "printf '#!/bin/sh\\necho built\\n' > /app && chmod 755 /app")
        s.copy(final, s.mount(build_container) / "app", "/usr/bin/app")
        s.run(final, "/usr/bin/app")
        s.config(final, edits.SetEntrypoint(("/usr/bin/app",)))
        return s.commit(final, name).id.encoded


def main() -> int:
    """Build, and print the ID; failures are builda's own exceptions, with a hint where there is one."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(build(sys.argv[1], sys.argv[2]))
    except builda.BuildaError as error:
        print(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
