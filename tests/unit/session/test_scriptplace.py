"""Which line of a script has a command."""

from __future__ import annotations

import pytest

from builda.session.scriptplace import Script, line_of, script_word

SCRIPT = """\
#!/bin/bash
step() {
    builda run "$c" -- "$@"
}
# run "$c" make
builda run "$c" -- make é > log
for i in 1 2; do
    buildah run "$c" -- \\
        echo "$i"
    builda copy $c a /a && builda copy $c a /b
done
step apt-get update
. lib.sh
more
builda run "$c" -- sh -c '
    make
    echo done' &
builda run "$c" --script - << END
make
END
wait
"""


def read_to(text: str) -> int:
    """How far bash has read when it performs the line that ends with `text`."""
    source = SCRIPT.encode().decode("latin-1")
    return source.index(text) + len(text)


@pytest.mark.parametrize(
    ("read", "arguments", "line"),
    [
        ("> log\n", ["run", "c-1", "--", "make", "\xe9"], 6),
        ("done\n", ["run", "c-1", "--", "echo", "2"], 8),
        ("done\n", ["copy", "c-1", "a", "/b"], 10),
        ("update\n", ["run", "c-1", "--", "apt-get", "update"], 3),
        ("more\n", ["run", "c-1", "--", "true"], 14),  # lib.sh has it
        ("&\n", ["run", "c-1", "--", "sh", "-c", "\n    make\n    echo done"], 15),
        ("\nEND\n", ["run", "c-1", "--script", "-"], 18),
        ("wait\n", ["run", "c-1", "--script", "-"], 18),  # bash has read all
        (None, ["run", "c-1", "--script", "-"], 18),
        (None, ["--quiet", "run", "c-1", "--", "make", "\xe9"], 6),
        (None, ["copy", "c-1", "a", "/a"], 10),
        (None, ["commit", "c-1", "x"], None),
    ],
)
def test_the_line_is_the_nearest_with_the_words(read: str | None, arguments: list[str], line: int | None) -> None:
    text = SCRIPT.encode().decode("latin-1")
    script = Script("build.sh", text, None if read is None else read_to(read))
    assert line_of(script, arguments) == line


def test_equal_lines_are_told_apart_by_what_was_read_only() -> None:
    text = "builda run c true\nbuilda run c true\n"
    assert line_of(Script("s", text, 18), ["run", "c", "true"]) == 1
    assert line_of(Script("s", text, None), ["run", "c", "true"]) is None


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["bash", "-eu", "build.sh", "1"], ("build.sh", None)),
        (["/bin/sh", "-ec", "true", "x"], ("-ec", "true")),
        (["./build.sh", "-c", "x"], ("./build.sh", None)),
        (["bash"], None),
        ([], None),
    ],
)
def test_the_script_of_a_shell(words: list[str], named: tuple[str, str | None] | None) -> None:
    assert script_word(words) == named
