"""`.in` files: what is a directive, what survives, and where every line came from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from builda.errors import ContainerfileError, InvalidValue
from builda.frontend.cppflags import Flags, parse_flags
from builda.frontend.preprocess import Preprocessed, preprocess
from tests.support import needs


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


def test_lines_of_heredocs_are_preprocessed_as_all_others(tmp_path: Path) -> None:
    (tmp_path / "step.sh").write_text("#!/bin/sh\n# why\ncase $1 in\n  /*) echo V;;\nesac\n")
    text = (
        "RUN bash <<'EOF'\n#include \"step.sh\"\n#ifdef ZFS\nzfs it's V\n#else\nnone\n#endif\n"
        "#define V 2\n'V' V ${#V}\nEOF\nRUN V\n"
    )
    included = ["#!/bin/sh", "# why", "case $1 in", "  /*) echo V;;", "esac"]
    rest = ["'V' 2 ${#2}", "EOF", "RUN 2"]
    assert lines(tmp_path, text) == ["RUN bash <<'EOF'", *included, "none", *rest]
    assert lines(tmp_path, text, "-DZFS") == ["RUN bash <<'EOF'", *included, "zfs it's V", *rest]


def test_the_arguments_of_a_macro_may_stand_on_several_lines(tmp_path: Path) -> None:
    assert lines(tmp_path, "#define I(p, q) <p-q>\nRUN I(a b,\n  c d\n  )\n") == ["RUN <a b-", "  c d>"]


def test_comments_of_c_go(tmp_path: Path) -> None:
    text = (
        "/* head */\n/**\n * more\n */\nFROM a /* of b */\nRUN x \\\n  /* why */\n  /* and\n     how */\n  y\n"
        '/* before */ RUN z\n/* open */ /* not text\nCOPY "/* q */" it\'s /* gone */ /x/\n'
    )
    assert [line.rstrip() for line in lines(tmp_path, text)] == [
        "FROM a",
        "RUN x \\",
        "  y",
        " RUN z",
        " /* not text",
        'COPY "/* q */" it\'s  /x/',
    ]


@pytest.mark.parametrize(
    "line",
    [
        "RUN rm -rf /var/lib/apt/lists/* /usr/*/doc/*",
        "RUN ls /* /tmp/*/",
        "  /*) echo absolute;;",
        "  /*.txt|*/) true;;",
        "RUN grep ' /* x */ ' f",
        "RUN echo /*x*/y a/*b */",
        "/* never closed",
        "RUN echo what??/ ok??=",
    ],
)
def test_patterns_of_files_are_no_comments(tmp_path: Path, line: str) -> None:
    assert lines(tmp_path, f"{line}\n") == [line]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# define V 1\nRUN V\n", ["RUN 1"]),
        ("#  define V 1\nRUN V\n", ["RUN 1"]),
        ("#\tdefine f(x) <x>\nRUN f(1)\n", ["RUN <1>"]),
        ("# define V 1\n# undef V\nRUN V\n", ["RUN V"]),
        ("# ifdef V /* set */\nRUN V\n# else\nRUN none\n# endif // V\n", ["RUN none"]),
        ("# if defined(V) && V > 1\nRUN V\n# elif !V\nRUN none\n# endif\n", ["RUN none"]),
        ('#  include "other"\n', ["RUN other"]),
    ],
)
def test_directives_may_have_white_space_behind_the_hash(tmp_path: Path, text: str, expected: list[str]) -> None:
    (tmp_path / "other").write_text("RUN other\n")
    assert lines(tmp_path, text) == expected
    assert run(tmp_path, text).warnings == ()


@pytest.mark.parametrize(
    ("line", "warns"),
    [
        ("# if the base image is old", False),
        ("# include only what is needed", False),
        ("# else we fail", False),
        ("# ifdef V is set", False),
        ("# define the base", True),
        ("# define it", True),
        ("# if needed", True),
        ("#   error handling", True),
        ("# warning: slow", True),
        ("# undef it", True),
    ],
)
def test_a_comment_that_could_be_a_directive_is_told(tmp_path: Path, line: str, warns: bool) -> None:
    result = run(tmp_path, f"FROM a\n{line}\n")
    assert result.source.lines == ("FROM a", line)
    assert [place.line for place, _ in result.warnings] == ([2] if warns else [])


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "/* open\n" * 10_000,
        "RUN a " + "/* " * 300_000 + "\n",
        "RUN a " + "/* " * 300_000 + "*/x\n",
        "RUN a " + "/* b */ " * 50_000 + "\n",
        'RUN a /* \\" ' + '\\" ' * 200_000 + "*/\n",
        "# define " + "/* " * 1000 + "\n",
        "# if " + "(" * 3000 + "\n",
        "# if " + "a - " * 2000 + "\n",
        "RUN <<EOF\n" + "a line of a script && /usr/bin/x # why\n" * 10_000 + "EOF\n",
        "#ifdef X\n" * 2000 + "#endif\n" * 2000,
        "\\\n" * 10_000,
    ],
    ids=[
        "blocks",
        "openings",
        "closed badly",
        "comments",
        "escapes",
        "define",
        "brackets",
        "if",
        "heredoc",
        "ifs",
        "ends",
    ],
)
def test_long_files_take_no_longer_than_their_length(tmp_path: Path, text: str) -> None:
    run(tmp_path, text)


def test_the_name_of_the_file_is_that_in_the_context(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.in").write_text("RUN __FILE__ __LINE__\n")
    assert lines(tmp_path, '#include "sub/a.in"\nRUN __FILE__\n') == ['RUN "sub/a.in" 1', 'RUN "Containerfile.in"']


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


@needs.program("cpp")
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


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ('#Include "x"', "include"),
        ('#includ "x"', "include"),
        ('#include_next "x"', "include"),
        ("#import <x>", "include"),
        ("#elseif A", "elif"),
        ("#ifdefined A", "ifdef"),
        ("#Define A 1", "define"),
        ("#endfi", "endif"),
        ("# error in A", "error"),
        ("#If you like", None),
        ("#Define the thing", None),
        ("#import this", None),
        ("#elsewhere", None),
        ("#included", None),
        ("#syntax=x", None),
    ],
)
def test_a_comment_that_reads_like_a_directive_is_named(tmp_path: Path, line: str, meant: str | None) -> None:
    result = run(tmp_path, f"FROM a\n{line}\n")
    said = f"line is a comment, and reads like a directive; written as #{meant} it is one"
    assert [(place.line, message) for place, message in result.warnings] == ([] if meant is None else [(2, said)])
    assert line in result.source.lines


@pytest.mark.parametrize("condition", ["1/0", "A A", "this is so"])
def test_a_condition_that_cannot_be_evaluated_is_shown(tmp_path: Path, condition: str) -> None:
    with pytest.raises(ContainerfileError) as caught:
        run(tmp_path, f"FROM a\n#if {condition}\n#endif\n")
    assert f"condition cannot be evaluated: {condition}" in str(caught.value)
    assert caught.value.line == 2


@pytest.mark.parametrize("rest", ["x.h", '""', '"x', "<x"])
def test_a_malformed_include_says_how_one_is_written(tmp_path: Path, rest: str) -> None:
    with pytest.raises(ContainerfileError, match="malformed #include") as caught:
        run(tmp_path, f"FROM a\n#include {rest}\n")
    assert caught.value.hint == 'write #include "file" or <file>'


def test_a_macro_with_a_parameter_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContainerfileError, match="a parameter of the macro has no name") as caught:
        run(tmp_path, "FROM a\n#define X(, b) a b\nRUN X(1, 2)\n")
    assert caught.value.line == 2
    with pytest.raises(InvalidValue, match="a parameter of the macro has no name"):
        run(tmp_path, "FROM a\n", "-DX(,b)=1")
