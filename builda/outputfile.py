"""Files that the user names for results: each is replaced as a whole, so that a reader never sees half of it."""

from __future__ import annotations

import os


def replace_whole(path: str, data: bytes, *, durable: bool = False) -> None:
    """Make `path` hold exactly `data`; with `durable` the data is on the disk first. OSError names `path`."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        error.filename, error.filename2 = path, None
        raise
