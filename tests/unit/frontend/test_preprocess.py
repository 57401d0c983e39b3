"""`.in` files: what is a directive, what survives, and where every line came from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from builda.errors import ContainerfileError, InvalidValue
from builda.frontend.preprocess import Flags, Preprocessed, parse_flags, preprocess


def run(tmp_path: Path, text: str, *flags: str) -> Preprocessed:
    file = tmp_path / "Containerfile.in"
    file.write_text(text)
    return preprocess(text.encode(), str(file), context=str(tmp_path), flags=parse_flags("", flags))


def lines(tmp_path: Path, text: str, *flags: str) -> list[str]:
    return list(run(tmp_path, text, *flags).source.lines)


def test_macros_are_replaced_in_text_and_not_in_quotes_or_comments(tmp_path: Path) -> None:
    text = "#define V 12\n# V\nRUN echo V \"V\" 'V' xV V.1\n"
    assert lines(tmp_path, text) == ["# V", "RUN echo 12 \"V\" 'V' xV 12.1"]


def test_function_macros(tmp_path: Path) -> None:
    assert lines(tmp_path, "#define I(p, q) apt-get install p q\nRUN I(curl, git) && x\n") == [
        "RUN apt-get install curl git && x"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "# syntax=docker/dockerfile:1",
        "RUN curl https://example.com//x && rm -rf /var/lib/apt/lists/* /usr/*/doc",
        "RUN echo don't stop",
        "# include is only a word here",
        "#!/bin/sh",
        "   # indented",
        "RUN a \\",
        "RUN echo 'open",
        "RUN [ $# = 0 ]",
    ],
)
def test_lines_that_cpp_would_spoil_survive(tmp_path: Path, line: str) -> None:
    assert lines(tmp_path, f"{line}\n")[0] == line


def test_heredoc_bodies_survive_whole(tmp_path: Path) -> None:
    body = "#!/bin/sh\n#include <stdio.h>\n#define A 1\nA\n"
    text = f"#define A x\nCOPY <<EOF /A\n{body}EOF\nRUN A\n"
    assert lines(tmp_path, text) == ["COPY <<EOF /x", *body.splitlines(), "EOF", "RUN x"]


def test_conditions(tmp_path: Path) -> None:
    text = "#if VERSION > 2 && defined(F)\nRUN new\n#elif VERSION\nRUN old\n#else\nRUN none\n#endif\n"
    assert lines(tmp_path, text, "-DVERSION=3", "-DF") == ["RUN new"]
    assert lines(tmp_path, text, "-DVERSION=1") == ["RUN old"]
    assert lines(tmp_path, text) == ["RUN none"]


def test_a_condition_may_stand_inside_a_continuation(tmp_path: Path) -> None:
    text = "RUN a \\\n#ifdef X\n  b \\\n#endif\n  c\n"
    assert lines(tmp_path, text, "-DX") == ["RUN a \\", "  b \\", "  c"]
    assert lines(tmp_path, text) == ["RUN a \\", "  c"]


def test_includes_look_beside_the_file_then_in_the_context_and_keep_their_places(tmp_path: Path) -> None:
    sub = tmp_path / "sub"
    sub.mkdir()
    (sub / "a.in").write_text('RUN one\n#include "b.in"\n')
    (sub / "b.in").write_text("RUN beside\n")
    (tmp_path / "b.in").write_text("RUN context\n")
    result = run(tmp_path, '#include "sub/a.in"\n#include "b.in"\n')
    assert result.source.lines == ("RUN one", "RUN beside", "RUN context")
    assert [Path(place.file).name for place in result.source.places] == ["a.in", "b.in", "b.in"]
    assert [place.line for place in result.source.places] == [1, 1, 1]
    assert len(result.files) == 4


def test_system_includes_look_in_the_i_directories_only(tmp_path: Path) -> None:
    (tmp_path / "x.in").write_text("RUN context\n")
    with pytest.raises(ContainerfileError, match=r"no such include file: x\.in"):
        run(tmp_path, "#include <x.in>\n")
    include = tmp_path / "include"
    include.mkdir()
    (include / "x.in").write_text("RUN i\n")
    assert lines(tmp_path, "#include <x.in>\n", f"-I{include}") == ["RUN i"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("FROM a\n#error not today\n", 2, "#error not today"),
        ('FROM a\n\n#include "nope"\n', 3, "no such include file: nope"),
        ("#if\n#endif\n", 1, "#if needs an argument"),
        ("FROM a\n#ifdef X\n", 2, "(?i)unterminated"),
        ("#endif\n", 1, "misplaced #endif"),
        ('#include "/etc/passwd"\n', 1, "outside the context"),
        ('#include "Containerfile.in"\n', 1, "nested more than"),
    ],
)
def test_failing_directives_fail_at_their_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(ContainerfileError, match=message) as caught:
        run(tmp_path, text)
    assert caught.value.line == line


def test_a_symbolic_link_does_not_lead_an_include_out(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ContainerfileError, match="outside the context"):
        run(tmp_path, '#include "link"\n')


def test_warnings_are_reported_with_their_place(tmp_path: Path) -> None:
    ((place, message),) = run(tmp_path, "FROM a\n#warning old base\n").warnings
    assert (place.line, message) == (2, "#warning old base")


def test_flags_are_parsed_in_order_with_the_environment_first() -> None:
    assert parse_flags("-DA=1 '-DB=two words' -I /x", ("-UA",)) == Flags(
        (("A", "1"), ("B", "two words"), ("A", None)), ("/x",)
    )


@pytest.mark.parametrize("flag", ["-O2", "-include", "x", "-D"])
def test_flags_that_cannot_be_honoured_are_refused(flag: str) -> None:
    with pytest.raises(InvalidValue):
        parse_flags("", (flag,))


@pytest.mark.skipif(shutil.which("cpp") is None, reason="cpp is not installed")
@pytest.mark.parametrize(
    "text",
    [
        "#define BASE debian\nFROM BASE\nRUN echo BASE \"BASE\" 'BASE'\n",
        "#define I(p) install p\nRUN I(curl) && I(git)\n",
        "#ifdef X\nRUN x\n#else\nRUN y\n#endif\n",
        "#define A B\n#define B c\nRUN A\n",
    ],
)
def test_agrees_with_cpp_where_cpp_is_sane(tmp_path: Path, text: str) -> None:
    result = subprocess.run(
        ["cpp", "-P", "-E", "-traditional", "-undef", "-"], input=text, text=True, capture_output=True, check=True
    )
    expected = [line for line in result.stdout.splitlines() if line.strip()]
    assert [line for line in lines(tmp_path, text) if line.strip()] == expected
