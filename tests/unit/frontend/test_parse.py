"""Instructions, continuations, heredocs and their places."""

from __future__ import annotations

import pytest

from builda.errors import ContainerfileError
from builda.frontend.parse import Instruction, excerpt, parse
from builda.frontend.sourcetext import SIZE_LIMIT, SourceText, decode
from builda.plan import Location


def instructions(text: str) -> tuple[Instruction, ...]:
    return parse(SourceText.of(text, "Containerfile")).instructions


def test_continuations_skip_comments_and_blank_lines_and_keep_the_first_line() -> None:
    first, second = instructions("FROM a\n\nRUN one && \\\n  # why\n\n  two\n")
    assert (first.keyword, first.value, first.at.line) == ("FROM", "a", 1)
    assert second.value.split() == ["one", "&&", "two"]
    assert second.at.line == 3


def test_a_continuation_may_lead_nowhere() -> None:
    assert instructions("FROM a\nRUN x \\\n")[1].value.strip() == "x"
    assert instructions("FROM a\nRUN x \\\n# end\n")[1].value.strip() == "x"


def test_an_instruction_may_stand_alone_on_its_line() -> None:
    assert instructions("FROM a\nRUN\\\n echo hi\n")[1].value == "echo hi"


def test_keywords_are_upper_case_whatever_was_written() -> None:
    (instruction,) = instructions("from a\n")
    assert (instruction.keyword, instruction.written) == ("FROM", "from")


def test_the_escape_directive_changes_continuations() -> None:
    _, run = instructions("# escape=`\nFROM a\nRUN dir C:\\ `\n  && echo\n")
    assert run.value.split() == ["dir", "C:\\", "&&", "echo"]


def test_the_escape_directive_may_follow_a_syntax_directive() -> None:
    parsed = parse(SourceText.of("# syntax=docker/dockerfile:1\n# escape=`\nFROM a\n", "f"))
    assert parsed.escape == "`"
    assert [key for key, _, _ in parsed.directives] == ["syntax", "escape"]


def test_flags_are_taken_off_and_unquoted() -> None:
    _, copy = instructions('FROM a\nCOPY --from=b --chown="x y" --link src dst\n')
    assert copy.flags == ("from=b", "chown=x y", "link")
    assert copy.value == "src dst"


def test_heredocs_are_lifted_out_of_run_and_copy() -> None:
    _, run, copy, env = instructions(
        "FROM a\nRUN <<EOF\nFROM inside\n# comment\nEOF\nCOPY <<-A <<'B' /x\n\ttabbed\n\tA\n$raw\nB\nENV a=b\n"
    )
    assert run.heredocs[0].body == "FROM inside\n# comment\n"
    assert [(h.name, h.body, h.expand) for h in copy.heredocs] == [("A", "tabbed\n", True), ("B", "$raw\n", False)]
    assert env.at.line == 11


@pytest.mark.parametrize(
    "line",
    [
        "RUN cat<<EOF",
        "RUN echo '<<EOF'x",
        "ENV a=<<EOF",
        "RUN a <<< b",
        "RUN echo $((1 << 2))",
        "RUN echo $((x << y))",
        "RUN a <<",
        "RUN a <<- EOF",
        'RUN ["cat", "<<EOF"]',
        "RUN echo it's <<EOF",
        "RUN x <<a<<b",
    ],
)
def test_what_only_looks_like_a_heredoc_is_none(line: str) -> None:
    assert instructions(f"FROM a\n{line}\n")[1].heredocs == ()


def test_an_unterminated_heredoc_names_its_line() -> None:
    with pytest.raises(ContainerfileError, match="not terminated: EOF") as caught:
        instructions("FROM a\nRUN <<EOF\necho\n")
    assert caught.value.line == 2


def test_an_unknown_instruction_names_the_near_one() -> None:
    with pytest.raises(ContainerfileError, match="unknown instruction: COPPY") as caught:
        instructions("FROM a\nCOPPY a b\n")
    assert (caught.value.line, caught.value.hint) == (2, "did you mean COPY?")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "\n\n"])
def test_an_empty_file_is_an_error(text: str) -> None:
    with pytest.raises(ContainerfileError, match="no instructions"):
        instructions(text)


def test_excerpts_mark_the_line() -> None:
    source = SourceText.of("FROM a\nBAD\nRUN x\n", "f")
    assert excerpt(source, Location("f", 2)) == ">    2 | BAD".join(["     1 | FROM a\n", "\n     3 | RUN x"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x7fELF\0\0", "binary"),
        (b"\xff\xfeF\0R\0", "UTF-16"),
        (b"FROM a\nRUN \xff\n", "not UTF-8"),
        (b"x" * (SIZE_LIMIT + 1), "more bytes than the limit"),
    ],
)
def test_bytes_that_are_no_containerfile_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ContainerfileError, match=message):
        decode(data, "Containerfile")


def test_byte_order_mark_and_carriage_returns_are_dropped() -> None:
    assert decode(b"\xef\xbb\xbfFROM a\r\nRUN x\r\n", "f") == "FROM a\nRUN x\n"
