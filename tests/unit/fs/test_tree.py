"""COPY: where things go, what they look like there, and what their digest covers."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from builda.errors import AlreadyExists, InvalidValue, NotFound
from builda.fs.chmod import parse_mode
from builda.fs.ignore import Matcher
from builda.fs.paths import empty
from builda.fs.sources import Source
from builda.fs.trees.copytree import CopyResult, copy_tree
from builda.fs.trees.directory import TreeTarget
from builda.fs.trees.walk import CopyRequest, FileKey, content_digest, content_size
from builda.oci.digest import Digest
from tests.unit.fs.trees import GID, UID, fails, opened, picture

ME = (UID, GID)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    for name in ("app/main.py", "app/lib/util.py", "app/lib/deep/x.txt", "README.md", "a.txt", "b.txt"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(name.encode())
        os.utime(path / name, (1000, 1000))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


def copy(context: Path, root: Path, destination: str, *paths: str, ignore: str = "", **options: Any) -> CopyResult:
    with opened(context) as source, opened(root) as target:
        rules = Matcher.parse(ignore)
        sources = tuple(Source(source, path, None, rules) for path in paths)
        moved = options.pop("moved", None)
        return copy_tree(CopyRequest(sources, destination, **{"owner": ME, **options}), TreeTarget(target), moved=moved)


def digest(context: Path, *paths: str, ignore: str = "", **options: Any) -> Digest:
    with opened(context) as source:
        rules = Matcher.parse(ignore)
        sources = tuple(Source(source, path, None, rules) for path in paths)
        told = {name: options.pop(name, None) for name in ("remembered", "moved")}
        return content_digest(CopyRequest(sources, "/", **{"owner": ME, **options}), **told)


def names(root: Path) -> list[str]:
    return sorted(name for name, looks in picture(root).items() if not looks[0].startswith("0o4"))


# Where things go


def test_a_directory_s_contents_are_copied_not_itself(context: Path, root: Path) -> None:
    result = copy(context, root, "/srv", "app")
    assert names(root) == ["srv/lib/deep/x.txt", "srv/lib/util.py", "srv/main.py"]
    assert (result.files, result.made) == (3, ("srv",))


def test_a_file_goes_to_the_name_or_into_the_directory(context: Path, root: Path) -> None:
    copy(context, root, "/one", "a.txt")
    copy(context, root, "/dir/", "a.txt")
    copy(context, root, "/dir", "b.txt")
    copy(context, root, "/x/.", "a.txt")
    copy(context, root, "/", "a.txt")
    assert names(root) == ["a.txt", "dir/a.txt", "dir/b.txt", "one", "x/a.txt"]


def test_several_files_go_into_a_directory(context: Path, root: Path) -> None:
    copy(context, root, "/dst", "*.txt", "app/lib")
    assert names(root) == ["dst/a.txt", "dst/b.txt", "dst/deep/x.txt", "dst/util.py"]


def test_a_source_may_have_another_name(context: Path, root: Path) -> None:
    with opened(context) as source, opened(root) as target:
        copy_tree(CopyRequest((Source(source, "a.txt", "index.html"),), "/www/", owner=ME), TreeTarget(target))
        for bad in ("..", "x/y", "."):
            request = CopyRequest((Source(source, "a.txt", bad),), "/www/", owner=ME)
            assert bad in fails(lambda made=request: copy_tree(made, TreeTarget(target)), InvalidValue)  # type: ignore[misc]
    assert names(root) == ["www/index.html"]


def test_sources_do_not_leave_their_root(context: Path, root: Path) -> None:
    (context.parent / "secret").write_bytes(b"outside")
    os.symlink("../secret", context / "out")
    for path in ("../secret", "/../secret", "out"):
        assert "no such file" in fails(lambda name=path: copy(context, root, "/x", name), NotFound)  # type: ignore[misc]
    copy(context, root, "/ok", "../../a.txt")
    assert names(root) == ["ok"]


def test_parents_keep_the_path_behind_the_pivot(context: Path, root: Path) -> None:
    (context / "app" / "lib").chmod(0o711)
    copy(context, root, "/p", "app/lib/util.py", "./app/./lib/deep", "app/lib/*/x.txt", parents=True)
    assert names(root) == ["p/app/lib/deep/x.txt", "p/app/lib/util.py", "p/lib/deep/x.txt"]
    assert stat.S_IMODE((root / "p/app/lib").stat().st_mode) == 0o711
    assert (root / "p/app/lib").stat().st_mtime_ns == (context / "app/lib").stat().st_mtime_ns


def test_links_in_the_destination_are_followed_inside_the_root(context: Path, root: Path) -> None:
    (root / "usr" / "lib").mkdir(parents=True)
    os.symlink("/usr/lib", root / "lib")
    os.symlink("../../../../..", root / "up")
    copy(context, root, "/lib/", "a.txt")
    copy(context, root, "/up/b", "b.txt")
    (context / "tree" / "lib").mkdir(parents=True)
    (context / "tree" / "lib" / "so").write_bytes(b"")
    copy(context, root, "/", "tree")
    assert (root / "lib").is_symlink()
    assert names(root) == ["b", "lib", "up", "usr/lib/a.txt", "usr/lib/so"]


def test_link_replaces_links_instead_of_following_them(context: Path, root: Path) -> None:
    (root / "usr").mkdir()
    os.symlink("usr", root / "lib")
    copy(context, root, "/lib/x/", "a.txt", link=True)
    assert not (root / "lib").is_symlink()
    assert names(root) == ["lib/x/a.txt"]


def test_a_link_at_the_destination_is_replaced_not_written_through(context: Path, root: Path) -> None:
    (root / "target").write_bytes(b"old")
    os.symlink("target", root / "name")
    copy(context, root, "/name", "a.txt")
    assert (root / "target").read_bytes() == b"old"
    assert (root / "name").read_bytes() == b"a.txt"


def test_directories_are_merged_and_files_replaced(context: Path, root: Path) -> None:
    (root / "srv" / "lib").mkdir(parents=True)
    (root / "srv" / "main.py").write_bytes(b"old")
    (root / "srv" / "lib" / "kept").write_bytes(b"")
    (root / "srv").chmod(0o700)
    copy(context, root, "/srv", "app")
    assert names(root) == ["srv/lib/deep/x.txt", "srv/lib/kept", "srv/lib/util.py", "srv/main.py"]
    assert (root / "srv" / "main.py").read_bytes() == b"app/main.py"
    assert stat.S_IMODE((root / "srv").stat().st_mode) == 0o700


def test_files_and_directories_do_not_replace_each_other(context: Path, root: Path) -> None:
    (root / "srv" / "main.py").mkdir(parents=True)
    assert fails(lambda: copy(context, root, "/srv", "app"), AlreadyExists) == (
        "cannot replace a directory with a file: /srv/main.py"
    )
    (root / "lib").write_bytes(b"")
    assert "a file is: /lib" in fails(lambda: copy(context, root, "/lib", "app"), AlreadyExists)
    (root / "opt").mkdir()
    (root / "opt" / "lib").write_bytes(b"")
    assert "cannot replace a file with a directory: /opt/lib" in fails(
        lambda: copy(context, root, "/opt", "app"), AlreadyExists
    )


def test_a_directory_is_not_copied_into_itself(root: Path) -> None:
    (root / "a").write_bytes(b"x")
    copy(root, root, "/backup", "/")
    assert names(root) == ["a", "backup/a"]


def test_trees_deeper_than_python_recurses_are_copied(context: Path, root: Path) -> None:
    fd = os.open(context / "app", os.O_RDONLY)
    for _ in range(900):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    assert copy(context, root, "/srv", "app").digest == digest(context, "app")
    for path in (context, root):
        with opened(path) as directory:
            empty(directory)


# What is not there


@pytest.mark.parametrize(
    ("path", "hint"),
    [("REDME.md", "README.md"), ("ap/main.py", "app"), ("app/Main.py", "app/main.py"), ("zzz", None)],
)
def test_a_missing_source_comes_with_a_near_miss(context: Path, root: Path, path: str, hint: str | None) -> None:
    with pytest.raises(NotFound) as caught:
        copy(context, root, "/x", "a.txt", path)
    assert str(caught.value) == f"no such file or directory: {path}"
    assert caught.value.hint == (f"did you mean {hint}?" if hint else None)
    assert names(root) == []


def test_a_source_that_the_ignore_file_hides_says_by_which_rule(context: Path, root: Path) -> None:
    for path in ("a.txt", "*.txt"):
        with pytest.raises(NotFound) as caught:
            copy(context, root, "/x/", path, ignore="app\n*.txt\n")
        what = "it" if path == "a.txt" else "a.txt"
        assert caught.value.hint == f"{what} exists, but the ignore file leaves it out by the rule *.txt"


def test_a_wildcard_that_matches_nothing_is_an_error_unless_allowed(context: Path, root: Path) -> None:
    assert fails(lambda: copy(context, root, "/x/", "*.nothing"), NotFound) == "no file matches: *.nothing"
    result = copy(context, root, "/x/", "*.nothing", allow_empty_wildcard=True)
    assert (result.files, result.digest) == (0, Digest.of(b""))


@pytest.mark.parametrize("options", [{}, {"parents": True}])
def test_of_several_sources_a_pattern_may_match_nothing(context: Path, root: Path, options: dict[str, Any]) -> None:
    copy(context, root, "/x/", "*.nothing", "a.txt", "b[x]", "no/such/*", **options)
    assert names(root) == ["x/a.txt"]
    with pytest.raises(NotFound, match=r"no such file.*: none"):  # a name must be there
        copy(context, root, "/x/", "a.txt", "none", **options)
    with pytest.raises(NotFound, match="no file matches"):
        copy(context, root, "/x/", "*.nothing", "b[x]", **options)


def test_a_socket_is_left_out_however_it_is_named(context: Path, root: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(context / "app/sock"))
    server.close()
    for sources in (("app/sock",), ("app/s*",), ("app/sock", "a.txt"), ("app",)):
        result = copy(context, root, "/x/", *sources)
        assert result.skipped == ("sock",)
        assert not (root / "x/sock").exists()
    assert digest(context, "app/sock", "a.txt") == digest(context, "a.txt")


def test_directories_made_on_the_way_have_the_mode_asked_for(context: Path, root: Path) -> None:
    (root / "there").mkdir(mode=0o711)
    copy(context, root, "/there/new/er/a", "a.txt", mode=parse_mode("0705"), made_mode=0o705)
    modes = [stat.S_IMODE((root / path).stat().st_mode) for path in ("there", "there/new", "there/new/er")]
    assert modes == [0o711, 0o705, 0o705]


def test_a_copy_of_link_is_the_same_whenever_it_is_made(context: Path, root: Path) -> None:
    for name in ("there", "other/deep"):
        (root / name).mkdir(parents=True)
        os.utime(root / name, (5, 5))
    (root / "other/link").symlink_to("/there")
    os.utime(root / "other", (6, 6))
    copy(context, root, "/there/new/er/", "a.txt", "b.txt", link=True)
    copy(context, root, "/there/", "a.txt", link=True)
    copy(context, root, "/other/link/a", "a.txt", link=True)
    times = {path: int((root / path).stat().st_mtime) for path in ("there", "there/new", "there/new/er", "other")}
    assert times == {"there": 5, "there/new": 0, "there/new/er": 0, "other": 6}
    assert (root / "other/link").is_dir()
    assert not (root / "other/link").is_symlink()


def test_a_name_with_brackets_is_explained(context: Path, root: Path) -> None:
    (context / "[id].js").write_bytes(b"")
    with pytest.raises(NotFound) as caught:
        copy(context, root, "/x/", "[id].js")
    assert "[[]" in (caught.value.hint or "")
    copy(context, root, "/x/", "[[]id].js")
    copy(context, root, "/y/", "[id].js", wildcards=False)
    assert names(root) == ["x/[id].js", "y/[id].js"]


def test_a_link_that_leads_nowhere_is_said_to_be_one(context: Path, root: Path) -> None:
    os.symlink("nowhere", context / "l")
    assert "a link that leads nowhere: l" in fails(lambda: copy(context, root, "/x", "l"), NotFound)
    copy(context, root, "/x", "l", follow_symlinks=False)
    assert os.readlink(root / "x") == "nowhere"


# What is left out


def test_ignored_files_are_left_out_and_taken_back_ones_come_with_their_directories(context: Path, root: Path) -> None:
    copy(context, root, "/srv", ".", ignore="**\n!app/lib/deep/*.txt\n!a.txt\n")
    assert names(root) == ["srv/a.txt", "srv/app/lib/deep/x.txt"]


def test_a_directory_whose_files_all_stay_out_stays_out_too(context: Path, root: Path) -> None:
    copy(context, root, "/srv", ".", ignore="app\n!app/nothing\n")
    assert not (root / "srv" / "app").exists()


@pytest.mark.parametrize("pattern", ["lib", "app/lib", "**/lib", "*/lib/**", "lib/*"])
def test_exclude_is_relative_to_the_context_or_to_the_directory(context: Path, root: Path, pattern: str) -> None:
    copy(context, root, "/srv", "app", excludes=(pattern,))
    assert names(root) == ["srv/main.py"]


def test_exclude_applies_to_wildcards(context: Path, root: Path) -> None:
    copy(context, root, "/srv/", "*.txt", "*.md", excludes=("a*", "*.md"))
    assert names(root) == ["srv/b.txt"]


# What copies look like


def test_links_in_trees_are_copied_as_links_and_named_ones_followed(context: Path, root: Path) -> None:
    os.symlink("../a.txt", context / "app" / "link")
    os.symlink("app", context / "named")
    copy(context, root, "/srv", "named")
    assert os.readlink(root / "srv" / "link") == "../a.txt"
    copy(context, root, "/f", "app/link")
    assert (root / "f").read_bytes() == b"a.txt"


def test_modes_times_and_hard_links_are_kept(context: Path, root: Path) -> None:
    (context / "app" / "main.py").chmod(0o4751)
    os.link(context / "app" / "main.py", context / "app" / "other")
    os.mkfifo(context / "app" / "pipe")
    os.setxattr(context / "app" / "main.py", "user.note", b"1")
    for path in (context / "app", *(context / "app").rglob("*")):
        os.utime(path, (5000, 5000))
    copy(context, root, "/srv", "app")
    assert picture(root / "srv") == picture(context / "app")
    assert (root / "srv").stat().st_mtime == 5000


@pytest.mark.root
def test_owners_are_kept_or_set(context: Path, root: Path) -> None:
    os.chown(context / "app" / "main.py", 5, 6)
    os.chown(context / "app", 7, 8)
    copy(context, root, "/kept/new", "app", owner=None)
    copy(context, root, "/set/new", "app", owner=(1, 2))

    def owner(name: str) -> tuple[int, int]:
        return (root / name).stat().st_uid, (root / name).stat().st_gid

    assert [owner(name) for name in ("kept", "kept/new", "kept/new/main.py")] == [(0, 0), (7, 8), (5, 6)]
    assert [owner(name) for name in ("set", "set/new", "set/new/main.py", "set/new/lib")] == [(1, 2)] * 4


@pytest.mark.root
def test_capabilities_survive_a_change_of_owner(context: Path, root: Path) -> None:
    subprocess.run(["/usr/sbin/setcap", "cap_net_raw+ep", context / "a.txt"], check=True)
    os.setxattr(context / "a.txt", "trusted.overlay.opaque", b"y")
    copy(context, root, "/a", "a.txt", owner=(1000, 1000))
    assert os.listxattr(root / "a") == ["security.capability"]


@pytest.mark.root
def test_devices_are_copied(context: Path, root: Path) -> None:
    os.mknod(context / "app" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    copy(context, root, "/srv", "app")
    copy(context, root, "/null", "app/null")
    assert (root / "srv/null").stat().st_rdev == (root / "null").stat().st_rdev == os.makedev(1, 3)


def test_chmod_and_timestamp_apply_to_all(context: Path, root: Path) -> None:
    copy(context, root, "/new/srv", "app", mode=parse_mode("u=rwX,go="), timestamp=77)
    assert stat.S_IMODE((root / "new/srv/lib").stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "new/srv/main.py").stat().st_mode) == 0o600
    assert {(root / name).stat().st_mtime for name in ("new", *picture(root))} == {77.0}


def test_sockets_are_skipped_and_told(context: Path, root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, opened(context / "app") as fd:
        server.bind(f"/proc/self/fd/{fd}/sock")
        assert copy(context, root, "/srv", "app").skipped == ("sock",)


def test_large_and_sparse_files_arrive_whole(context: Path, root: Path) -> None:
    (context / "big").write_bytes(os.urandom(1 << 20) * 5 + b"tail")
    with open(context / "sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(b"data")
        file.truncate(64 << 20)
    copy(context, root, "/", "big", "sparse")
    assert picture(root) == {name: looks for name, looks in picture(context).items() if name in ("big", "sparse")}
    assert (root / "sparse").stat().st_blocks * 512 < 1 << 20


def test_names_that_are_not_text_are_copied(context: Path, root: Path) -> None:
    name = os.fsdecode(b"app/\xff\xfe")
    (context / name).write_bytes(b"x")
    copy(context, root, "/srv", "app")
    copy(context, root, "/", name)
    assert (root / os.fsdecode(b"\xff\xfe")).exists()
    assert (root / os.fsdecode(b"srv/\xff\xfe")).exists()


# What the digest covers


def test_the_digest_is_known_without_copying(context: Path, root: Path) -> None:
    os.symlink("x", context / "app" / "link")
    os.link(context / "a.txt", context / "hard.txt")
    for paths, options in (
        (("app",), {}),
        (("a.txt",), {}),
        (("*.txt", "app"), {"excludes": ("lib",)}),
        ((".",), {"ignore": "*.md\n"}),
        (("app/lib/util.py",), {"parents": True}),
        (("app",), {"owner": None}),
    ):
        made = copy(context, root, "/d/", *paths, **options)
        assert made.digest == digest(context, *paths, **options)


def test_the_digest_does_not_cover_times_and_covers_the_rest(context: Path) -> None:
    first = digest(context, "app")
    os.utime(context / "app" / "main.py", (1, 1))
    assert digest(context, "app") == first
    seen = {first}
    for change in (
        lambda: (context / "app" / "main.py").write_bytes(b"other"),
        lambda: (context / "app" / "main.py").chmod(0o777),
        lambda: (context / "app" / "lib").chmod(0o700),
        lambda: os.rename(context / "app" / "main.py", context / "app" / "main2.py"),
        lambda: os.symlink("a", context / "app" / "s"),
        lambda: os.setxattr(context / "app" / "main2.py", "user.a", b"1"),
        lambda: (context / "app" / "empty").mkdir(),
    ):
        change()
        seen.add(digest(context, "app"))
    assert len(seen) == 8
    assert digest(context, "app", owner=None) not in seen


def test_remembered_files_are_not_read(context: Path) -> None:
    remembered: dict[FileKey, bytes] = {}
    first = digest(context, "app", remembered=remembered)
    assert len(remembered) == 3
    assert set(remembered.values()) == {
        hashlib.sha256(name).digest() for name in (b"app/main.py", b"app/lib/util.py", b"app/lib/deep/x.txt")
    }
    key = next(iter(remembered))
    remembered[key] = b"told otherwise"
    assert digest(context, "app", remembered=remembered) != first


def test_copying_tells_what_it_read(context: Path, root: Path) -> None:
    remembered: dict[FileKey, bytes] = {}
    with opened(context) as source, opened(root) as target:
        request = CopyRequest((Source(source, "app"),), "/x", owner=ME)
        made = copy_tree(request, TreeTarget(target), remembered=remembered)
        assert len(remembered) == 3
        assert content_digest(request, remembered=remembered) == made.digest


# What is told of a copy while it goes on


def test_bytes_are_told_as_they_are_copied_and_can_be_asked_for_before(context: Path, root: Path) -> None:
    (context / "large").write_bytes(os.urandom((2 << 20) + 7))
    os.truncate(context / "large", 8 << 20)
    os.link(context / "large", context / "again")
    os.mkfifo(context / "app/fifo")
    told: list[int] = []
    result = copy(context, root, "/", ".", moved=told.append, excludes=("*.md",))
    with opened(context) as source:
        rules = CopyRequest((Source(source, "."),), "/", owner=ME, excludes=("*.md",))
        assert content_size(rules) == result.bytes
    assert sum(told) == result.bytes
    assert len(told) > result.files


def test_bytes_that_are_read_for_a_digest_are_told_too(context: Path) -> None:
    told: list[int] = []
    remembered: dict[FileKey, bytes] = {}
    digest(context, ".", moved=told.append, remembered=remembered)
    digest(context, ".", moved=told.append, remembered=remembered)
    assert sum(told) == sum(path.stat().st_size for path in context.rglob("*") if path.is_file())


# Ignore rules that take back


def deep(top: Path, levels: int, files: int = 0) -> None:
    """Directories called d, one in the other, with some files in each."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        for number in range(files):
            os.close(os.open(f"f{number}", os.O_CREAT, 0o644, dir_fd=fd))
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("kept", os.O_CREAT, 0o644, dir_fd=fd))
    os.close(fd)


@pytest.mark.parametrize(
    ("rules", "name", "shows"),
    [
        ("*\n!test*\ntest1.txt\n", "test1.txt", False),
        ("*\n!test*\ntest1.txt\n", "test2.txt", True),
        ("*\n!dir/*.txt\ndir/a.txt\n", "dir/a.txt", False),
        ("*\n!dir/*.txt\n", "dir/a.txt", True),
        ("*\n!dir/*.txt\n", "dir", True),
        ("*\n!dir/none\n", "dir", False),
        ("dir\n!dir/sub/deep.txt\n", "dir", True),
        ("dir\n!dir/sub/none\n", "dir/sub", False),
        ("*\n!**/deep.txt\n", "dir/sub", True),
        ("link\n!link/a.txt\n", "link", False),
    ],
)
def test_what_is_taken_back_shows_and_nothing_else(
    tmp_path: Path, root: Path, rules: str, name: str, shows: bool
) -> None:
    context = tmp_path / "c"
    for path in ("test1.txt", "test2.txt", "dir/a.txt", "dir/b", "dir/sub/deep.txt"):
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        (context / path).touch()
    (context / "link").symlink_to("dir")
    for named in (name, f"{name[:-1]}[{name[-1]}]"):
        if shows:
            copied = copy(context, root, f"/{len(named)}/", named, ignore=rules)
            assert copied.digest == digest(context, named, ignore=rules)
        else:
            with pytest.raises(NotFound) as caught:
                copy(context, root, "/x/", named, ignore=rules)
            assert "leaves it out" in str(caught.value.hint)


def test_rules_and_patterns_go_to_any_depth_in_linear_time(context: Path, root: Path) -> None:
    (context / "deep").mkdir()
    deep(context / "deep", 1200, files=3)
    with pytest.raises(NotFound):
        copy(context, root, "/a/", "deep", ignore="deep\n!**/none\n")
    result = copy(context, root, "/b/", ".", ignore="deep\n!**/kept\napp\n*.txt\n*.md\n")
    assert result.files == 1
    assert copy(context, root, "/c/", "deep/**/kept").files == 1
    for path in (context / "deep", root):
        with opened(path) as fd:
            empty(fd)
