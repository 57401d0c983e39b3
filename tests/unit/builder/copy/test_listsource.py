"""What of a known tree is put on disk for a copy to look at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builda.builder.copy.listsource import fill, looked_at
from builda.fs.lists.layertree import Node, Row, Tree
from builda.fs.tar import DIRECTORY, HARD_LINK, REGULAR, SYMBOLIC_LINK

ROWS = (
    Row(b"bin", SYMBOLIC_LINK, 0o777, 0, 0, 0, link=b"usr/bin"),
    Row(b"etc", DIRECTORY, 0o755, 0, 0, 0),
    Row(b"etc/passwd", REGULAR, 0o644, 0, 0, 0, size=9),
    Row(b"etc/mtab", SYMBOLIC_LINK, 0o777, 0, 0, 0, link=b"/proc/mounts"),
    Row(b"usr", DIRECTORY, 0o755, 0, 0, 0),
    Row(b"usr/bin", DIRECTORY, 0o755, 0, 0, 0),
    Row(b"usr/bin/awk", SYMBOLIC_LINK, 0o777, 0, 0, 0, link=b"/etc/alternatives/awk"),
    Row(b"usr/bin/perl", REGULAR, 0o755, 0, 0, 0, size=5),
    Row(b"usr/bin/perl5", HARD_LINK, 0o755, 0, 0, 0, link=b"usr/bin/perl"),
    Row(b"etc/alternatives", DIRECTORY, 0o755, 0, 0, 0),
    Row(b"etc/alternatives/awk", SYMBOLIC_LINK, 0o777, 0, 0, 0, link=b"/usr/bin/mawk"),
    Row(b"usr/bin/mawk", REGULAR, 0o755, 0, 0, 0, size=7),
)
ETC = ["etc", "etc/alternatives", "etc/alternatives/awk", "etc/mtab", "etc/passwd"]
USR = ["usr", *(f"usr/bin{name}" for name in ("", "/awk", "/mawk", "/perl", "/perl5"))]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (("/etc",), ETC),
        (("etc/./passwd",), ["etc", "etc/passwd"]),
        (("/etc/../usr/bin/perl5",), ["usr", "usr/bin", "usr/bin/perl", "usr/bin/perl5"]),  # one file
        (("/bin/perl",), ["bin", "usr", "usr/bin", "usr/bin/perl", "usr/bin/perl5"]),
        (("/bin",), ["bin", *USR]),
        (
            ("/bin/awk", "etc/passwd"),
            [
                *("bin", "etc", "etc/alternatives", "etc/alternatives/awk", "etc/passwd"),
                *("usr", "usr/bin", "usr/bin/awk", "usr/bin/mawk"),
            ],
        ),
        (("/",), ["bin", *ETC, *USR]),
        (("/etc/p*",), ["bin", *ETC, *USR]),  # a link that fits could lead anywhere
        (("/etc/pasword",), ["bin", *ETC, *USR]),  # the error names the one that is meant
        (("/etc/mtab",), ["bin", *ETC, *USR]),  # it leads nowhere
    ],
)
def test_a_shadow_has_what_the_copy_looks_at(sources: tuple[str, ...], expected: list[str], tmp_path: Path) -> None:
    tree = Tree()
    tree.add(ROWS, "layer")
    known: dict[tuple[int, int], Node] = {}
    root = os.open(tmp_path, os.O_RDONLY)
    fill(root, tree.root, looked_at(tree, sources), known)
    os.close(root)
    found = sorted(tmp_path.rglob("*"))
    assert [str(path.relative_to(tmp_path)) for path in found] == expected
    for path in (tmp_path, *found):
        node, info = tree.find(os.fsencode(path.relative_to(tmp_path)), follow=False), path.lstat()
        assert known[info.st_dev, info.st_ino] is node
        assert node is not None
        assert node.row.kind != REGULAR or info.st_size == node.row.size
