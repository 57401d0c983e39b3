"""Owners that are kept aside by a process that has one id and no right."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.rootless import REPOSITORY, interpreter

GIVE = """
import os, sys
from builda.fs import owners, standin
os.chdir(sys.argv[1])
os.mkdir("directory")
os.symlink("nowhere", "link")
open("file", "w").close()
fd, here = os.open("file", os.O_RDWR), os.open(".", os.O_RDONLY)
owners.give(fd, 1000, 1000)
owners.give_at("directory", 1000, 1000, dir_fd=here)
owners.give_at("link", 1000, 1000, dir_fd=here)
for path in ("file", "directory", "link"):
    values = owners.values_of(here, b"link") if path == "link" else {standin.XATTR: os.getxattr(path, standin.XATTR)}
    print(*owners.seen(os.lstat(path), values))
owners.give(fd, 0, 0)
print(*owners.seen(os.stat("file"), {standin.XATTR: os.getxattr("file", standin.XATTR)}))
"""


@pytest.mark.root
def test_files_given_to_the_process_itself_are_not_roots(tmp_path: Path) -> None:
    """In a pod whose user is 1000, files of 1000 and of root would look the same."""
    place = tmp_path / "place"
    place.mkdir()
    os.chown(place, 1000, 1000)
    for above in (tmp_path, *tmp_path.parents):
        if above == Path(tempfile.gettempdir()):
            break
        above.chmod(0o755)
    done = subprocess.run(
        [interpreter()[0], "-c", GIVE, place],
        user=1000,
        group=1000,
        extra_groups=(),
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["1000 1000"] * 3 + ["0 0"], done.stderr
