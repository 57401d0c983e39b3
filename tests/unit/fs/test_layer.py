"""Trees to layers and back, and layers made to harm."""

from __future__ import annotations

import errno
import io
import os
import random
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builda.errors import CorruptContent, Unsupported
from builda.fs.layer import (
    Clamp,
    apply,
    as_overlay_has_it,
    diff,
    diff_trees,
    fingerprints,
    inherit_directories,
    unpack_blob,
    write_layer,
    write_tree,
)
from builda.fs.paths import empty
from builda.fs.tar import BLOCK, CHARACTER, FIFO, HARD_LINK, REGULAR, SYMBOLIC_LINK
from builda.oci.digest import Digest
from tests.unit.fs.trees import (
    Written,
    applied,
    archive,
    directory,
    entry,
    fails,
    file,
    layer_of,
    members,
    names_of,
    opened,
    picture,
    read_archive,
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir(mode=0o755)
    return path


def set_time(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds), follow_symlinks=False)


# The way there


def test_names_come_in_the_order_of_their_bytes_parents_first(tree: Path) -> None:
    for name in ("a/x", "a-b", "a.c/y", "a0", "A/z", "\u00e9", "a/b/c"):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    names = [os.fsencode(name) for name in names_of(layer_of(tree))]
    assert names == sorted(names)
    assert {b"a/", b"a/b/", b"A/", b"a.c/"} <= set(names)


def test_equal_trees_give_equal_layers(tmp_path: Path) -> None:
    layers = []
    for name, order in (("one", 1), ("two", -1)):
        root = tmp_path / name
        root.mkdir()
        for leaf in ("a", "b", "c")[::order]:
            (root / leaf).write_bytes(leaf.encode())
            set_time(root / leaf, 1_000_000_000)
        layers.append(layer_of(root))
    assert layers[0] == layers[1]


def test_fractions_of_seconds_are_not_recorded(tree: Path) -> None:
    (tree / "a").write_bytes(b"")
    os.utime(tree / "a", ns=(0, 5_999_999_999))
    (member,) = members(layer_of(tree))
    assert member.entry.mtime_ns == 5 * 10**9


def test_times_are_clamped_while_the_layer_is_written(tree: Path) -> None:
    for name, when in (("old", 10), ("new", 5000)):
        (tree / name).write_bytes(b"")
        set_time(tree / name, when)

    def times(clamp: Clamp) -> dict[bytes, int]:
        return {member.entry.name: member.entry.mtime for member in members(layer_of(tree, clamp))}

    assert times(Clamp(latest=100)) == {b"old": 10, b"new": 100}
    assert times(Clamp(exact=100)) == {b"old": 100, b"new": 100}


def test_the_first_name_in_order_carries_the_content_of_a_hard_link(tree: Path) -> None:
    (tree / "z").write_bytes(b"data")
    (tree / "d").mkdir()
    os.link(tree / "z", tree / "d" / "a")
    found = read_archive(layer_of(tree))
    assert found[b"d/a"][1] == b"data"
    assert (found[b"z"][0].type, found[b"z"][0].link) == (HARD_LINK, b"d/a")


def test_sockets_are_left_out_and_told(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, opened(tree) as fd:
        server.bind(f"/proc/self/fd/{fd}/sock")
        out = io.BytesIO()
        assert diff(fd, out) == ("/sock",)
    assert names_of(out.getvalue()) == []


def test_a_file_that_is_called_like_a_whiteout_is_refused(tree: Path) -> None:
    (tree / ".wh.x").write_bytes(b"")
    assert fails(lambda: layer_of(tree), Unsupported).endswith("/.wh.x")


def test_the_root_is_recorded_only_when_it_looks_unusual(tree: Path, target: Path) -> None:
    tree.chmod(0o755)
    usual = names_of(layer_of(tree))
    tree.chmod(0o711)
    assert names_of(layer_of(tree))[: len(names_of(layer_of(tree))) - len(usual)] == ["./"]
    applied(layer_of(tree), target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o711


def test_layers_are_read_by_gnu_tar(tree: Path, target: Path) -> None:
    (tree / "d").mkdir()
    (tree / "d" / ("n" * 200)).write_bytes(b"x")
    os.symlink("d", tree / "l")
    os.mkfifo(tree / "f")
    subprocess.run(["tar", "-xpf", "-", "-C", target], input=layer_of(tree), check=True)
    assert picture(target) == picture(tree)


def test_trees_deeper_than_python_recurses_work(tree: Path, target: Path) -> None:
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(1900):
        os.mkdir("d", dir_fd=fd)
        os.utime("d", (5, 5), dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    layer = layer_of(tree)
    assert len(members(layer)) == 1900
    assert applied(layer, target).entries == 1900
    with opened(target) as root:
        assert len(fingerprints(root)) == 1901
    for path in (tree, target):
        with opened(path) as root:
            empty(root)
        assert not os.listdir(path)


# Overlay's upper directory


@pytest.mark.root
def test_overlay_deletions_become_whiteouts_and_back(tree: Path, target: Path) -> None:
    (tree / "d" / "o").mkdir(parents=True)
    os.mknod(tree / "d" / "gone", stat.S_IFCHR, 0)
    os.mknod(tree / "old", stat.S_IFCHR, 0)
    os.setxattr(tree / "d" / "o", "trusted.overlay.opaque", b"y")
    os.setxattr(tree / "d" / "o", "trusted.overlay.origin", b"host")
    (tree / "d" / "o" / "new").write_bytes(b"1")
    layer = layer_of(tree)
    assert names_of(layer) == [".wh.old", "d/", "d/.wh.gone", "d/o/", "d/o/.wh..wh..opq", "d/o/new"]
    assert not any(member.entry.xattrs for member in members(layer))
    applied(layer, target, "overlay")
    assert target.joinpath("d/gone").stat().st_rdev == 0
    assert stat.S_ISCHR(target.joinpath("old").stat().st_mode)
    assert os.getxattr(target / "d" / "o", "trusted.overlay.opaque") == b"y"
    assert layer_of(target) == layer


BOTH_ORDERS = pytest.mark.parametrize("turn", [1, -1], ids=["first", "last"])


def test_files_of_fuse_overlayfs_become_whiteouts_and_back(tree: Path, target: Path) -> None:
    (tree / "d" / "o").mkdir(parents=True)
    for name in (".wh.old", "d/.wh.gone", "d/.wh.both", "d/both", "d/o/.wh..wh..opq", "d/o/new"):
        (tree / name).write_bytes(b"")
    os.setxattr(tree / "d" / "o" / "new", "user.fuseoverlayfs.origin", b"host")
    layer = layer_of(tree, marks="files")
    assert names_of(layer) == [
        ".wh.old",
        "d/",
        "d/.wh.both",
        "d/.wh.gone",
        "d/o/",
        "d/o/.wh..wh..opq",
        "d/o/new",
    ]
    assert not any(member.entry.xattrs for member in members(layer))
    applied(layer, target, "files")
    assert sorted(os.listdir(target / "d")) == [".wh.both", ".wh.gone", "o"]
    assert layer_of(target, marks="files") == layer


def test_directories_that_fuse_overlayfs_copied_up_have_their_set_id_bits_again(tmp_path: Path) -> None:
    upper, middle, lower = (tmp_path / name for name in ("upper", "middle", "lower"))
    for name in ("mail", "mail/box", "closed", "gone", "new/mail", "hidden"):
        (upper / name).mkdir(parents=True)
        (lower / name).mkdir(parents=True)
        (lower / name).chmod(0o2755)
    (upper / "closed").chmod(0o700)
    (upper / "new/.wh..wh..opq").touch()
    middle.mkdir()
    (middle / ".wh.hidden").touch()
    with opened(upper) as top, opened(middle) as below, opened(lower) as bottom:
        as_overlay_has_it(top, (below, bottom))
    found = {str(path.relative_to(upper)) for path in upper.rglob("*") if path.stat().st_mode & 0o2000}
    assert found == {"mail", "mail/box", "gone"}


@BOTH_ORDERS
def test_for_fuse_overlayfs_a_whiteout_does_not_hide_its_own_layer(tree: Path, turn: int) -> None:
    entries: list[Written] = [file(".wh.d"), directory("d"), file("d/new"), file(".wh.f"), file("f", b"own")]
    if turn < 0:
        entries = [directory("d"), file("d/new"), file("f", b"own"), file(".wh.f"), file(".wh.d")]
    applied(archive(*entries), tree, "files")
    assert sorted(os.listdir(tree)) == ["d", "f"]
    assert sorted(os.listdir(tree / "d")) == [".wh..wh..opq", "new"]


def test_for_fuse_overlayfs_a_whiteout_before_entries_below_it_without_their_directory(tree: Path) -> None:
    applied(archive(file(".wh.d"), file("d/sub/new"), file(".wh.other")), tree, "files")
    assert sorted(os.listdir(tree)) == [".wh.other", "d"]
    assert sorted(os.listdir(tree / "d")) == [".wh..wh..opq", "sub"]


@pytest.mark.root
def test_opaque_by_user_xattr(tree: Path) -> None:
    applied(archive(directory("d"), file("d/.wh..wh..opq")), tree, "overlay", userxattr=True)
    assert os.getxattr(tree / "d", "user.overlay.opaque") == b"y"
    assert names_of(layer_of(tree)) == ["d/", "d/.wh..wh..opq"]


@pytest.mark.root
@BOTH_ORDERS
def test_under_overlay_a_whiteout_hides_what_is_below_and_not_its_own_layer(tree: Path, turn: int) -> None:
    entries: list[Written] = [file(".wh.d"), directory("d"), file("d/new"), file(".wh.f"), file("f", b"own")]
    if turn < 0:
        entries = [directory("d"), file("d/new"), file("f", b"own"), file(".wh.f"), file(".wh.d")]
    applied(archive(*entries), tree, "overlay")
    assert os.getxattr(tree / "d", "trusted.overlay.opaque") == b"y"
    assert (tree / "d" / "new").exists()
    assert (tree / "f").read_bytes() == b"own"


@pytest.mark.root
def test_a_whiteout_before_entries_below_it_without_their_directory(tree: Path) -> None:
    applied(archive(file(".wh.d"), file("d/new")), tree, "overlay")
    assert os.getxattr(tree / "d", "trusted.overlay.opaque") == b"y"


@BOTH_ORDERS
def test_in_a_flat_tree_a_whiteout_hides_what_is_below_and_not_its_own_layer(tree: Path, turn: int) -> None:
    (tree / "d" / "sub").mkdir(parents=True)
    (tree / "d" / "sub" / "old").write_bytes(b"")
    (tree / "f").write_bytes(b"old")
    own: list[Written] = [directory("d"), directory("d/sub"), file("d/sub/new"), file("f", b"own")]
    hiding: list[Written] = [file(".wh.d"), file(".wh.f"), file(".wh.never-there")]
    applied(archive(*(hiding + own if turn > 0 else own + hiding)), tree)
    assert sorted(picture(tree)) == ["d", "d/sub", "d/sub/new", "f"]
    assert (tree / "f").read_bytes() == b"own"


@BOTH_ORDERS
def test_in_a_flat_tree_an_opaque_directory_keeps_only_its_own(tree: Path, turn: int) -> None:
    (tree / "d" / "sub").mkdir(parents=True)
    for name in ("d/old", "d/sub/old"):
        (tree / name).write_bytes(b"")
    own = [file("d/new"), file("d/sub/new")]
    marker = [file("d/.wh..wh..opq")]
    applied(archive(directory("d"), *(marker + own if turn > 0 else own + marker)), tree)
    assert sorted(picture(tree)) == ["d", "d/new", "d/sub", "d/sub/new"]


@BOTH_ORDERS
@pytest.mark.parametrize("whiteouts", ["plain", pytest.param("overlay", marks=pytest.mark.root)])
def test_an_opaque_root_hides_all_layers_below(tree: Path, whiteouts: str, turn: int) -> None:
    (tree / "old").write_bytes(b"")
    result = applied(archive(*[file(".wh..wh..opq"), file("own")][::turn]), tree, whiteouts)
    if whiteouts == "overlay":
        assert result.hides_all
    else:
        assert sorted(picture(tree)) == ["own"]


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.."])
def test_whiteouts_of_no_file_are_corrupt(tree: Path, name: str) -> None:
    (tree / "d").mkdir()
    (tree / "kept").write_bytes(b"")
    assert "whiteout of no file" in fails(lambda: applied(archive(file(name)), tree), CorruptContent)
    assert (tree / "kept").exists()


def test_aufs_bookkeeping_is_ignored(tree: Path) -> None:
    applied(archive(directory(".wh..wh.plnk"), file(".wh..wh.aufs")), tree)
    assert picture(tree) == {}


# The way back


@pytest.mark.root
def test_owners_modes_times_devices_and_attributes_are_kept(tree: Path, target: Path) -> None:
    (tree / "d").mkdir(mode=0o1777)
    os.chmod(tree / "d", 0o1777)
    (tree / "suid").write_bytes(b"x")
    os.chown(tree / "suid", 1000, 2000)
    os.chmod(tree / "suid", 0o6755)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(tree / "suid", "security.capability", capability)
    os.setxattr(tree / "d", "user.note", b"\0binary\xff")
    subprocess.run(["setfacl", "-m", "u:1234:r", tree / "suid"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:r", tree / "d"], check=True)
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tree / "disk", stat.S_IFBLK | 0o600, os.makedev(4000, 1_000_000))
    os.mkfifo(tree / "d" / "pipe")
    os.symlink("/nowhere", tree / "link")
    os.lchown(tree / "link", 5, 6)
    for name in ("d/pipe", "d", "suid", "link", "null"):
        set_time(tree / name, 1_234_567)
    applied(layer_of(tree), target)
    assert picture(target) == picture(tree)
    assert os.getxattr(target / "suid", "security.capability") == capability


NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff\xfe", b"caf\xc3\xa9", b"sp ace", b"n" * 120, b"-", b"new\nline"])
LEAVES = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=300), st.sampled_from([0o644, 0o755, 0o4711, 0o400])),
    st.tuples(st.just("link"), st.binary(min_size=1, max_size=150).filter(lambda to: b"\0" not in to), st.just(0)),
    st.tuples(st.just("fifo"), st.just(b""), st.just(0o600)),
    st.tuples(st.just("hard"), st.just(b""), st.just(0)),
    st.tuples(st.just("sparse"), st.integers(1, 5), st.just(0o644)),
)
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=5), max_leaves=25)


def grow(parent: bytes, name: bytes, value: object, files: list[bytes], seconds: Iterator[int]) -> None:
    path = parent + b"/" + name
    if isinstance(value, dict):
        os.mkdir(path)
        for key, inner in value.items():
            grow(path, key, inner, files, seconds)
    else:
        assert isinstance(value, tuple)
        leaf(path, *value, files=files)
    os.utime(path, (0, next(seconds)), follow_symlinks=False)


def leaf(path: bytes, kind: str, data: bytes | int, mode: int, *, files: list[bytes]) -> None:
    if kind == "link":
        assert isinstance(data, bytes)
        os.symlink(data, path)
    elif kind == "fifo":
        os.mkfifo(path, mode)
    elif kind == "hard" and files:
        os.link(files[0], path)
    else:
        with open(path, "wb") as out:
            out.write(data if isinstance(data, bytes) else b"start")
            if isinstance(data, int):
                out.truncate(data << 17)
        os.chmod(path, mode)
        files.append(path)


@given(st.dictionaries(NAMES, TREES, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_applying_a_layer_gives_the_tree_it_was_made_of(
    tmp_path_factory: pytest.TempPathFactory, plan: dict[bytes, object], source: random.Random
) -> None:
    base = tmp_path_factory.mktemp("roundtrip")
    (base / "tree").mkdir()
    seconds = iter(lambda: source.randrange(2**33), None)
    for name, value in plan.items():
        grow(os.fsencode(base / "tree"), name, value, [], seconds)
    layer = layer_of(base / "tree")
    applied(layer, base / "target")
    assert picture(base / "target") == picture(base / "tree")
    assert layer_of(base / "target") == layer


def test_a_blob_is_unpacked_and_must_be_what_the_configuration_promises(tree: Path, target: Path) -> None:
    (tree / "a").write_bytes(b"x" * 100_000)
    out = io.BytesIO()
    with opened(tree) as fd:
        layer = write_layer(lambda sink: diff(fd, sink), out, compression="gzip")
    with opened(target) as root:
        found = unpack_blob(io.BytesIO(out.getvalue()), "gzip", root, diff_id=layer.diff_id, whiteouts="plain")
        assert (found.entries, found.bytes) == (1, 100_000)
        wrong = Digest.of(b"other")
        assert f"promises {wrong}" in fails(
            lambda: unpack_blob(io.BytesIO(out.getvalue()), "gzip", root, diff_id=wrong, whiteouts="plain"),
            CorruptContent,
        )
        for cut in (5, 100, len(out.getvalue()) - 3):
            fails(
                lambda end=cut: unpack_blob(  # type: ignore[misc]
                    io.BytesIO(out.getvalue()[:end]), "gzip", root, diff_id=layer.diff_id, whiteouts="plain"
                ),
                CorruptContent,
            )


def test_later_entries_replace_earlier_ones(tree: Path) -> None:
    applied(
        archive(
            file("twice", b"1"),
            file("twice", b"2"),
            file("file-dir"),
            directory("file-dir"),
            directory("dir-file"),
            file("dir-file/x"),
            file("dir-file", b"now a file"),
            entry("link-dir", SYMBOLIC_LINK, link=b"twice"),
            directory("link-dir"),
            directory("dir-dir", mode=0o700),
            file("dir-dir/stays"),
            directory("dir-dir", mode=0o750),
            entry("pipe", FIFO),
            entry("pipe", SYMBOLIC_LINK, link=b"x"),
        ),
        tree,
    )
    assert (tree / "twice").read_bytes() == b"2"
    assert (tree / "dir-file").read_bytes() == b"now a file"
    assert (tree / "file-dir").is_dir()
    assert (tree / "link-dir").is_dir()
    assert not (tree / "link-dir").is_symlink()
    assert (tree / "dir-dir" / "stays").exists()
    assert stat.S_IMODE((tree / "dir-dir").stat().st_mode) == 0o750
    assert os.readlink(tree / "pipe") == "x"


def test_directories_that_are_not_listed_are_made_and_told(tree: Path) -> None:
    result = applied(archive(file("a/b/c"), directory("a", mode=0o700)), tree)
    assert result.implied == ("a/b",)
    assert stat.S_IMODE((tree / "a").stat().st_mode) == 0o700
    assert (stat.S_IMODE((tree / "a/b").stat().st_mode), (tree / "a/b").stat().st_mtime) == (0o755, 0)


def test_directories_that_are_not_listed_inherit_the_looks_of_lower_layers(tmp_path: Path) -> None:
    for name in ("upper", "middle", "lower"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "root").mkdir(mode=0o700)
    set_time(tmp_path / "lower" / "root", 77)
    result = applied(archive(file("root/x"), file("new/y")), tmp_path / "upper")
    with opened(tmp_path / "upper") as root, opened(tmp_path / "middle") as m, opened(tmp_path / "lower") as low:
        inherit_directories(root, (m, low), result.implied)
    info = (tmp_path / "upper" / "root").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_mtime) == (0o700, 77)
    assert stat.S_IMODE((tmp_path / "upper" / "new").stat().st_mode) == 0o755


def test_directories_of_a_flat_tree_that_are_not_listed_keep_their_looks(tree: Path) -> None:
    (tree / "root").mkdir(mode=0o700)
    set_time(tree / "root", 77)
    applied(archive(file("root/x")), tree)
    info = (tree / "root").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_mtime) == (0o700, 77)


def test_long_zeros_become_holes(tree: Path, target: Path) -> None:
    (tree / "z").write_bytes(b"a" + bytes(8 << 20) + b"b" + bytes(3 << 20))
    applied(layer_of(tree), target)
    assert (target / "z").read_bytes() == (tree / "z").read_bytes()
    assert (target / "z").stat().st_blocks * 512 < 1 << 20


def test_a_sparse_file_of_gnu_tar_stays_sparse(tree: Path, target: Path) -> None:
    with open(tree / "s", "wb") as out:
        out.seek(5 << 20)
        out.write(b"middle")
        out.truncate(50 << 20)
    data = subprocess.run(["tar", "-SC", tree, "-cf", "-", "s"], check=True, stdout=subprocess.PIPE).stdout
    applied(data, target)
    assert (target / "s").read_bytes() == (tree / "s").read_bytes()
    assert (target / "s").stat().st_blocks * 512 < 1 << 20


@pytest.mark.root
def test_only_attributes_that_belong_to_images_are_set(tree: Path) -> None:
    values = {
        "user.fine": b"1",
        "trusted.fine": b"1",
        "trusted.overlay.opaque": b"y",
        "trusted.overlay.redirect": b"/etc",
        "user.overlay.opaque": b"y",
        "user.overlay.metacopy": b"",
        "security.selinux": b"x",
        "system.nonsense": b"x",
    }
    applied(archive(directory("d", xattrs=values), file("f", xattrs=values)), tree, "overlay")
    for name in ("d", "f"):
        assert sorted(os.listxattr(tree / name)) == ["trusted.fine", "user.fine"]


def test_attributes_that_cannot_be_kept_are_told(tree: Path) -> None:
    link = entry("l", SYMBOLIC_LINK, link=b"x", xattrs={"user.a": b"1"})  # the kernel has none on links
    assert applied(archive(link), tree).skipped == ("user.a",)


# Layers made to harm


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the root with a file that must stay as it is."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(b"untouched")
    before = picture(path)
    yield path
    assert picture(path) == before


@pytest.mark.parametrize("name", ["../outside/secret", "/../outside/secret", "a/../../outside/secret", ".."])
@pytest.mark.parametrize("kind", [REGULAR, HARD_LINK, SYMBOLIC_LINK])
def test_entries_that_climb_out_are_corrupt(tree: Path, outside: Path, name: str, kind: bytes) -> None:
    message = fails(lambda: applied(archive(entry(name, kind, link=b"x")), tree), CorruptContent)
    assert repr(name) in message
    assert picture(tree) == {}


def test_absolute_names_are_taken_inside_the_root(tree: Path, outside: Path) -> None:
    applied(archive(file(f"/{outside}/secret", b"mine"), file("//a/./b/../c", b"")), tree)
    assert (tree / str(outside).lstrip("/") / "secret").read_bytes() == b"mine"
    assert (tree / "a/c").exists()


@pytest.mark.parametrize("to", ["../outside", "/", "../../../../../..", "{outside}"])
def test_links_do_not_lead_out_of_the_root(tree: Path, outside: Path, to: str) -> None:
    link = entry("l", SYMBOLIC_LINK, link=os.fsencode(to.format(outside=outside)))
    others: list[Written] = [
        file("l/secret", b"bad"),
        file("l/outside/secret", b"bad"),
        directory("l/secret"),
        file("l/.wh.secret"),
    ]
    for other in others:
        with suppress(CorruptContent):
            applied(archive(link, other), tree)
        assert not (tree.parent / "secret").exists()
    assert (outside / "secret").read_bytes() == b"untouched"


def test_a_chain_of_links_does_not_lead_out(tree: Path, outside: Path) -> None:
    layer = archive(
        directory("d"),
        entry("d/up", SYMBOLIC_LINK, link=b".."),
        entry("d/up2", SYMBOLIC_LINK, link=b"up/.."),
        entry("out", SYMBOLIC_LINK, link=b"d/up2/outside"),
        file("out/secret", b"bad"),
    )
    applied(layer, tree)
    assert (tree / "outside" / "secret").read_bytes() == b"bad"


def test_looping_links_are_corrupt(tree: Path) -> None:
    layer = archive(entry("a", SYMBOLIC_LINK, link=b"b"), entry("b", SYMBOLIC_LINK, link=b"a"), file("a/x"))
    assert "cannot unpack 'a/x'" in fails(lambda: applied(layer, tree), CorruptContent)


@pytest.mark.parametrize("link", ["../outside/secret", "missing", "l/secret", "d", "l"])
def test_hard_links_reach_only_files_of_the_root(tree: Path, outside: Path, link: str) -> None:
    layer = archive(
        directory("d"),
        entry("l", SYMBOLIC_LINK, link=os.fsencode(outside)),
        entry("h", HARD_LINK, link=os.fsencode(link)),
    )
    if link == "l":  # to the link itself: harmless, and what tar means
        applied(layer, tree)
        assert os.readlink(tree / "h") == str(outside)
    else:
        fails(lambda: applied(layer, tree), CorruptContent)


def test_a_file_is_never_written_through_a_link(tree: Path, outside: Path) -> None:
    link = entry("f", SYMBOLIC_LINK, link=os.fsencode(outside / "secret"))
    applied(archive(link, file("f", b"mine")), tree)
    assert (tree / "f").read_bytes() == b"mine"
    assert not (tree / "f").is_symlink()


def test_a_hard_link_to_itself_changes_nothing(tree: Path) -> None:
    applied(archive(file("f", b"x"), entry("f", HARD_LINK, link=b"f")), tree)
    assert (tree / "f").read_bytes() == b"x"


@pytest.mark.root
def test_overlay_s_own_whiteouts_cannot_be_smuggled_in(tree: Path) -> None:
    device = entry("x", CHARACTER, major=0, minor=0)
    assert "0:0" in fails(lambda: applied(archive(device), tree, "overlay"), CorruptContent)
    hidden = archive(file(".wh.x"), entry("h", HARD_LINK, link=b"x"))
    assert "'h'" in fails(lambda: applied(hidden, tree, "overlay"), CorruptContent)


@pytest.mark.parametrize(("major", "minor"), [(0o7777777, 1), (1, 0o7777777)])
def test_device_numbers_that_no_kernel_has_are_corrupt(tree: Path, major: int, minor: int) -> None:
    device = entry("x", BLOCK, major=major, minor=minor)
    assert "device number" in fails(lambda: applied(archive(device), tree), CorruptContent)


def test_entries_of_unknown_type_are_corrupt(tree: Path) -> None:
    assert "unknown type b'~'" in fails(lambda: applied(archive(entry("x", b"~")), tree), CorruptContent)


def test_names_that_are_too_long_are_corrupt(tree: Path) -> None:
    assert "longer than 255" in fails(lambda: applied(archive(file("n" * 256)), tree), CorruptContent)
    assert "longer than 4096" in fails(lambda: applied(archive(file("n/" * 2049)), tree), CorruptContent)


def test_a_file_larger_than_any_file_system_is_corrupt(tree: Path) -> None:
    pairs = [b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=9000000000000000000"]
    body = b"".join(b"%d %b\n" % (len(pair) + 4, pair) for pair in pairs)
    layer = archive((entry("x", b"x", size=len(body))), file("s", b"0\n".ljust(512, b"\0")))
    layer = layer[:512] + body.ljust(512, b"\0") + layer[512:]
    fails(lambda: applied(layer, tree), CorruptContent)


def test_what_is_wrong_with_the_machine_is_not_blamed_on_the_layer(tree: Path) -> None:
    class Broken:
        def read(self, size: int = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with opened(tree) as root, pytest.raises(OSError, match="Input/output"):
        apply(Broken(), root, whiteouts="plain")


@pytest.mark.root
def test_a_device_that_may_not_be_made_is_a_file_that_layers_record_as_the_device(tree: Path) -> None:
    layer = tree.parent / "layer"
    layer.write_bytes(archive(entry("null", CHARACTER, major=1, minor=3, mode=0o640, gid=5)))
    script = (
        "import sys, os\nfrom builda.fs.layer import apply\n"
        "apply(open(sys.argv[1], 'rb'), os.open(sys.argv[2], os.O_RDONLY), whiteouts='plain')\n"
    )
    command: list[str | Path] = [
        "setpriv",
        "--bounding-set=-mknod",
        "--inh-caps=-mknod",
        sys.executable,
        "-c",
        script,
        layer,
        tree,
    ]
    subprocess.run(command, check=True)
    assert (tree / "null").is_file()
    (found,) = [member.entry for member in members(layer_of(tree))]
    assert (found.type, found.major, found.minor, found.mode, found.gid) == (CHARACTER, 1, 3, 0o640, 5)
    assert found.xattrs == {}


@pytest.mark.root
def test_an_archive_cannot_bring_a_file_that_stands_in_for_a_device(tree: Path) -> None:
    attribute = {"user.containers.override_stat": b"0:0:0666:char-1-3", "user.kept": b"1"}
    applied(archive(file("null", xattrs=attribute)), tree)
    (found,) = [member.entry for member in members(layer_of(tree))]
    assert (found.type, found.xattrs) == (REGULAR, {"user.kept": b"1"})


# A flat tree against its record


def changes(tree: Path, change: object) -> list[str]:
    with opened(tree) as root:
        before = fingerprints(root)
        assert callable(change)
        change()
        out = io.BytesIO()
        diff_trees(before, root, out)
    return names_of(out.getvalue())


@pytest.fixture
def flat(tree: Path) -> Path:
    (tree / "a" / "deep").mkdir(parents=True)
    for name in ("a/deep/one", "a/two", "three", "gone"):
        (tree / name).write_bytes(b"1")
        set_time(tree / name, 100)
    set_time(tree / "a" / "deep", 100)
    return tree


def test_an_unchanged_tree_is_an_empty_layer(flat: Path) -> None:
    assert changes(flat, lambda: None) == []


def test_additions_changes_and_deletions_with_the_directories_above_them(flat: Path) -> None:
    def change() -> None:
        (flat / "a" / "deep" / "one").write_bytes(b"2")
        (flat / "a-new").mkdir()
        (flat / "a-new" / "x").write_bytes(b"")
        (flat / "gone").unlink()

    assert changes(flat, change) == [".wh.gone", "a-new/", "a-new/x", "a/", "a/deep/", "a/deep/one"]


def test_changes_that_keep_size_and_time_are_found(flat: Path) -> None:
    def change() -> None:
        (flat / "three").write_bytes(b"2")
        set_time(flat / "three", 100)

    assert changes(flat, change) == ["three"]


def test_a_deleted_directory_is_one_whiteout_and_a_retyped_one_is_an_entry(flat: Path) -> None:
    def change() -> None:
        subprocess.run(["rm", "-r", flat / "a"], check=True)
        (flat / "three").unlink()
        (flat / "three").mkdir()

    assert changes(flat, change) == [".wh.a", "three/"]


@given(st.lists(st.sampled_from(["add", "write", "delete", "mode", "dir", "link"]), max_size=8), st.randoms())
@settings(max_examples=40, deadline=None)
def test_changes_applied_to_the_old_tree_give_the_new_one(
    tmp_path_factory: pytest.TempPathFactory, plan: list[str], source: random.Random
) -> None:
    base = tmp_path_factory.mktemp("changes")
    old, new = base / "old", base / "new"
    (old / "d" / "e").mkdir(parents=True)
    for name in ("x", "d/y", "d/e/z"):
        (old / name).write_bytes(b"old")
    subprocess.run(["cp", "-a", old, new], check=True)
    with opened(new) as root:
        before = fingerprints(root)
        for index, action in enumerate(plan):
            mutate(new, action, index, source)
        out = io.BytesIO()
        diff_trees(before, root, out)
    applied(out.getvalue(), old)
    assert picture(old) == picture(new)


def mutate(root: Path, action: str, index: int, source: random.Random) -> None:
    paths = sorted(path for path in root.rglob("*") if not path.is_symlink())
    directories = [root, *(path for path in paths if path.is_dir())]
    files = [path for path in paths if path.is_file()]
    parent = source.choice(directories)
    if action == "add":
        (parent / f"n{index}").write_bytes(b"new")
    elif action == "dir":
        (parent / f"n{index}").mkdir()
    elif action == "link":
        os.symlink("anywhere", parent / f"n{index}")
    elif action == "delete" and paths:
        subprocess.run(["rm", "-r", source.choice(paths)], check=True)
    elif action == "write" and files:
        source.choice(files).write_bytes(b"changed")
    elif action == "mode" and paths:
        source.choice(paths).chmod(0o700)


def test_a_whole_tree_is_one_layer(tree: Path, target: Path) -> None:
    (tree / "a").mkdir()
    (tree / "a" / "b").write_bytes(b"x")
    out = io.BytesIO()
    with opened(tree) as root:
        assert write_tree(root, out) == ()
    applied(out.getvalue(), target)
    assert picture(target) == picture(tree)
