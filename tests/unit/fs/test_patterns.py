"""Wildcards, ignore files and modes mean what they mean to Docker."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builda.errors import InvalidValue
from builda.fs.chmod import parse_mode
from builda.fs.glob import glob
from builda.fs.ignore import Matcher
from builda.fs.patterns import compiled, translate
from tests.unit.fs.trees import fails, opened


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [  # the rows of Go's own documentation of path/filepath.Match
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*", "", True),
        ("*c", "abc", True),
        ("a*", "ab/c", False),
        ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True),
        (r"a\*b", "a*b", True),
        (r"a\*b", "ab", False),
        ("a?b", "a\u263ab", True),
        ("a[^a]b", "a\u263ab", True),
        ("a???b", "a\u263ab", False),
        ("[a-\u03b6]*", "\u03b1", True),
        ("a[!b]", "a!", True),
        (r"[\]a]", "]", True),
        (r"[\-x]", "-", True),
        ("[z-a]", "m", False),
        ("a.b", "axb", False),
        ("a+(b)|{c}$", "a+(b)|{c}$", True),
        ("*x", "xxx", True),
        ("*", ".hidden", True),
        ("[[&&~~||--]", "|", None),
        ("[[&~|]", "&", True),
    ],
)
def test_patterns_match_as_in_go(pattern: str, name: str, matches: bool | None) -> None:
    if matches is None:
        fails(lambda: compiled(pattern), InvalidValue)
    else:
        assert bool(compiled(pattern).fullmatch(name)) is matches


@pytest.mark.parametrize("pattern", ["[]a]", "[-]", "[x-]", "[-x]", "a[", "[", "[^", "[^bc", "a\\", "[a-", "[a"])
def test_patterns_that_go_refuses_are_refused(pattern: str) -> None:
    assert fails(lambda: compiled(pattern), InvalidValue) == f"malformed pattern: {pattern}"
    fails(lambda: Matcher.of([pattern]), InvalidValue)


@given(st.text(alphabet="ab*?[]^-\\/!.", max_size=8), st.text(alphabet="ab/.", max_size=8))
def test_any_pattern_is_taken_or_refused(pattern: str, name: str) -> None:
    try:
        Matcher.of([pattern]).excludes(name)
        compiled(pattern).fullmatch(name)
    except InvalidValue:
        return


@pytest.mark.parametrize(
    ("patterns", "path", "excluded"),
    [  # rows of moby's patternmatcher tests
        (["**"], "file", True),
        (["**"], "dir/file", True),
        (["**/"], "file", True),
        (["**/**"], "dir/file", True),
        (["dir/**"], "dir/file", True),
        (["dir/**"], "dir", False),
        (["**/dir"], "dir/file", True),
        (["**/dir2/*"], "dir/dir2/file", True),
        (["**/dir2/**"], "dir/dir2/dir2/file", True),
        (["**file"], "dir/file", True),
        (["**file"], "dir/afile", True),
        (["**/file"], "dir/afile", False),
        (["a**/*.txt"], "abcd/b.txt", True),
        (["a/**/b"], "a/b", True),
        (["a/**/b"], "a/x/y/b", True),
        (["a/*/b"], "a/x/y/b", False),
        (["*.go"], "dir/x.go", False),
        (["docs/", "!docs/README.md"], "docs/README.md", False),
        (["docs/", "!docs/README.md"], "docs/a/README.md", True),
        (["*", "!a", "a/b"], "a/b/c", True),
        (["*", "!a", "a/b"], "a/c", False),
        (["a", "!a/b", "a/b/c"], "a/b/c", True),
        (["a", "!a/b", "a/b/c"], "a/b/d", False),
        (["!a", "a"], "a", True),
        (["a/../b"], "b", True),
        (["./a"], "a", True),
        (["a b"], "a b", True),
        (["[a-c].txt"], "b.txt", True),
        ([r"a\!b"], "a!b", True),
        (["x"], "xy", False),
        (["new\nline"], "new\nline", True),
    ],
)
def test_the_last_rule_that_matches_decides(patterns: list[str], path: str, excluded: bool) -> None:
    matcher = Matcher.of(patterns)
    assert matcher.excludes(path) is excluded
    assert ("by the rule " in matcher.blame(path)) is excluded


def test_ignore_files_are_read_as_docker_reads_them() -> None:
    matcher = Matcher.parse("\ufeff# comment\n\n  /node_modules/  \n*.log\n!/keep.log\n #not a comment\n! spaced\n/\n")
    assert matcher.excludes("node_modules/x")
    assert matcher.excludes("a.log")
    assert not matcher.excludes("keep.log")
    assert matcher.excludes("#not a comment")
    assert not matcher.excludes("comment")
    assert not Matcher.parse("# only\n\n")
    assert "names no path" in fails(lambda: Matcher.parse("!\n"), InvalidValue)


def test_the_rule_that_hides_a_path_is_known() -> None:
    matcher = Matcher.parse("*.md\n!README.md\nREADME.*\n")
    assert matcher.blame("README.md").endswith("by the rule README.*")
    assert matcher.blame("a.md").endswith("by the rule *.md")
    assert matcher.blame("x").endswith("by the rule")


@pytest.mark.parametrize(
    ("patterns", "directory", "reaches"),
    [
        (["tmp", "!tmp/keep/x"], "tmp", True),
        (["tmp", "!tmp/keep/x"], "tmp/keep", True),
        (["tmp", "!tmp/keep/x"], "tmp/other", False),
        (["*", "!**/*.go"], "anything", True),
        (["tmp", "!other/x"], "tmp", False),
        (["tmp", "!t*"], "tmp", True),
    ],
)
def test_directories_are_entered_only_when_something_may_be_taken_back(
    patterns: list[str], directory: str, reaches: bool
) -> None:
    assert Matcher.of(patterns).reaches_into(directory) is reaches


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("src/main.c", "src/util.c", "src/deep/er/x.c", "src/.hidden", "lib/a.c", "[odd]", "caf\u00e9"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    os.symlink("/src", tmp_path / "link")
    os.symlink("nowhere", tmp_path / "dangling")
    (tmp_path / os.fsdecode(b"\xff.bin")).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("src/*.c", ["src/main.c", "src/util.c"]),
        ("/src/*.c", ["src/main.c", "src/util.c"]),
        ("./*/a.c", ["lib/a.c"]),
        ("*/*.c", ["lib/a.c", "link/main.c", "link/util.c", "src/main.c", "src/util.c"]),
        ("src/*", ["src/.hidden", "src/deep", "src/main.c", "src/util.c"]),
        ("**/x.c", ["src/deep/er/x.c"]),
        ("src/**/*.c", ["src/deep/er/x.c", "src/main.c", "src/util.c"]),
        ("src/**", ["src/.hidden", "src/deep", "src/deep/er", "src/deep/er/x.c", "src/main.c", "src/util.c"]),
        ("[[]odd]", ["[odd]"]),
        (r"\[odd\]", ["[odd]"]),
        ("dang*", ["dangling"]),
        ("caf?", ["caf\u00e9"]),
        ("*.bin", [os.fsdecode(b"\xff.bin")]),
        ("../src/m*", ["src/main.c"]),
        ("nothing*", []),
    ],
)
def test_wildcards_are_expanded_inside_the_root(root: Path, pattern: str, found: list[str]) -> None:
    with opened(root) as fd:
        assert list(glob(fd, pattern)) == sorted(found, key=os.fsencode)


@pytest.mark.parametrize(
    ("text", "before", "is_directory", "after"),
    [
        ("755", 0o600, False, 0o755),
        ("04755", 0, False, 0o4755),
        ("0o644", 0o777, True, 0o644),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o700, False, 0o755),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("+x", 0o644, False, 0o755),
        ("a+x,g-w", 0o664, False, 0o755),
        ("g=u", 0o640, False, 0o660),
        ("u+x-w", 0o600, False, 0o500),
        ("go=", 0o777, False, 0o700),
        ("u+s,+t", 0o755, False, 0o5755),
        ("g-s", 0o2755, True, 0o755),
        ("o=g-w", 0o660, False, 0o664),
        ("=r", 0o777, False, 0o444),
    ],
)
def test_modes_are_those_of_chmod(text: str, before: int, is_directory: bool, after: int) -> None:
    assert parse_mode(text)(before, is_directory) == after


@pytest.mark.parametrize("text", ["", "9", "0888", "77777", "x+r", "u", "u=q", "+x,", "rwx", "0o", "-1"])
def test_modes_that_mean_nothing_are_refused(text: str) -> None:
    assert text in fails(lambda: parse_mode(text), InvalidValue)


# Speed: whatever a file of patterns says, and however files are called


def naive(pattern: str) -> str:
    """What a pattern means, without a thought about time."""
    found, at = "", 0
    while at < len(pattern):
        if pattern[at:] in ("**", "**/"):
            return found + ".*"
        if pattern.startswith("**/", at):
            found, at = found + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            found, at = found + "(?:.*/)?", at + 2
        else:
            found, at = found + {"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at])), at + 1
    return found


@given(pattern=st.text("ab/*?", max_size=12), name=st.text("ab/", max_size=12))
def test_patterns_mean_what_they_say(pattern: str, name: str) -> None:
    expected = re.fullmatch(naive(pattern), name, re.DOTALL)
    assert bool(re.fullmatch(translate(pattern, double_star=True), name, re.DOTALL)) == bool(expected)


@given(
    pattern=st.lists(st.sampled_from(["*", "a", "[^a]", "[.-0]", "/", "?"]), max_size=8),
    name=st.text("ab/", max_size=8),
)
def test_classes_may_match_a_slash(pattern: list[str], name: str) -> None:
    words = {"*": "[^/]*", "?": "[^/]"}
    expected = re.fullmatch("".join(words.get(part, part) for part in pattern), name)
    assert bool(compiled("".join(pattern)).fullmatch(name)) == bool(expected)


@pytest.mark.parametrize("pattern", ["*a" * 60 + "b", "**/a/" * 60 + "b", "*a/**/" * 40 + "b", "?*a" * 40 + "b"])
def test_many_stars_take_no_longer_than_one(pattern: str) -> None:
    name = "a" * 250 if "/" not in pattern else "a/" * 250
    assert not Matcher.of([pattern]).excludes(name)


def test_many_rules_and_many_files_take_little_time() -> None:
    rules = Matcher.parse("".join(f"dir{n}/file{n}\n**/name{n}\n" for n in range(5000)) + "*.pyc\n!dir7/kept\n")
    assert [rules.excludes(f"src/lib{n % 20}/module{n}.py") for n in range(20_000)] == [False] * 20_000
    assert rules.excludes("x/name77/y")
    assert rules.excludes("dir4999/file4999/inner")
    assert not rules.excludes("dir4999/file49990")
    assert rules.reaches_into("dir7")
    assert not rules.reaches_into("dir8")
