"""The live view of a build, on a real terminal; and what is printed where there is none."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Builda
from tests.support.screen import Screen, on_terminal

pytestmark = pytest.mark.root

Write = Callable[[str], Path]

SLOW = "i=0; while [ $i -lt 30 ]; do echo line-$i; i=$((i+1)); sleep 0.03; done"


@pytest.fixture
def write(builda: Builda, base: str, tmp_path: Path) -> Write:
    """Makes a context whose Containerfile has this text, BASE being a busybox image that is unpacked already."""
    context = tmp_path / "c"
    context.mkdir()
    builda("rm", builda("from", base))

    def written(text: str) -> Path:
        (context / "Containerfile").write_text(text.replace("BASE", base))
        return context

    return written


def test_finished_steps_stay_with_their_seconds_and_bytes(builda: Builda, write: Write) -> None:
    context = write(f"FROM BASE\nENV A=b\nRUN {SLOW}; head -c 100000 /dev/urandom > /f\nWORKDIR /w\n")
    shown = on_terminal([*builda.command, "bud", "-t", "made", str(context)])
    assert shown.status == 0
    lines = shown.screen().text.splitlines()
    assert lines[0] == "1/4 FROM localhost/busybox:latest"
    assert lines[1] == "2/4 ENV A=b"
    assert re.fullmatch(r"3/4 RUN i=0; while .*…  \d+\.\d\ds, 100 KB", lines[2])
    assert re.fullmatch(r"4/4 WORKDIR /w  \d\.\d\ds, \d+ B", lines[3])
    assert re.fullmatch(r"built in \d\.\ds: 4 steps, 0 cached", lines[4])
    assert lines[5] == "COMMIT made"
    assert lines[6].startswith("--> ")
    assert lines[7] == "Successfully tagged localhost/made:latest"
    assert len(lines[8]) == 64
    assert len(lines) == 9
    again = on_terminal([*builda.command, "bud", str(context)]).screen().text
    assert re.search(r"3/4 RUN .*  cached\n", again)
    assert re.search(r"built in \d\.\ds: 4 steps, 2 cached\n", again)


def test_the_running_step_shows_its_time_and_last_lines_and_is_drawn_seldom(builda: Builda, write: Write) -> None:
    shown = on_terminal([*builda.command, "bud", str(write(f"FROM BASE\nRUN {SLOW}\n"))])
    frames = [(at, text) for at, text in shown.pieces if re.search(r"2/2 RUN .* \d\.\ds\S*\r\n", text)]
    assert any(re.search(r"\d\.\ds\S*\r\n(\S*    line-\d+\S*\r\n){5}$", text) for _, text in frames)
    assert any(re.search(r"building \d\.\ds, 1 of 2 steps", text) for _, text in frames)
    assert len(frames) <= 10 * (frames[-1][0] - frames[0][0]) + 2
    assert not re.search(r"line-\d", shown.screen().text)


def test_stages_side_by_side_each_have_a_place(builda: Builda, write: Write) -> None:
    context = write(
        "FROM BASE AS a\nRUN sleep 0.5; echo from-a; sleep 0.5\nFROM BASE AS b\nRUN sleep 0.5; echo from-b; sleep 0.5\n"
        "FROM BASE\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n"
    )
    shown = on_terminal([*builda.command, "bud", "--jobs", "2", str(context)])
    assert shown.status == 0
    together = [text for _, text in shown.pieces if "from-a" in text and "from-b" in text]
    assert together
    assert "[1/3] 2/2 RUN" in together[0]
    assert "[2/3] 2/2 RUN" in together[0]
    assert "[3/3] COMMIT" in shown.screen().text


def test_a_failure_takes_the_view_down_and_shows_the_output_once(builda: Builda, write: Write) -> None:
    context = write("FROM BASE\nRUN sleep 0.3; echo out; echo err >&2; exit 7\n")
    shown = on_terminal([*builda.command, "bud", str(context)])
    assert shown.status == 7
    lines = shown.screen(200).text.splitlines()
    assert lines[0] == "1/2 FROM localhost/busybox:latest"
    assert re.fullmatch(r"2/2 RUN sleep 0.3; echo out; echo err >&2; exit 7  failed after \d+\.\d\ds", lines[1])
    assert re.fullmatch(r"failed after \d+\.\ds", lines[2])
    assert "Containerfile:2: command failed with exit status 7: RUN sleep" in lines[3]
    assert lines[-3:] == ["the last lines of its output:", "  out", "  err"]
    assert sum(line.strip() == "out" for line in lines) == 1


def test_an_interrupt_takes_the_view_down(builda: Builda, write: Write) -> None:
    sent: list[int] = []

    def interrupt(pid: int, terminal: int, text: str) -> None:
        if "line-3" in text and not sent:
            sent.append(pid)
            os.write(terminal, b"\x03")

    shown = on_terminal([*builda.command, "bud", str(write(f"FROM BASE\nRUN {SLOW}; sleep 20\n"))], act=interrupt)
    assert shown.status in (130, -signal.SIGINT)
    lines = shown.screen(200).text.replace("^C", "").splitlines()
    assert lines[0] == "1/2 FROM localhost/busybox:latest"
    assert re.fullmatch(r"2/2 RUN i=0; .* stopped after \d\.\d\ds", lines[1])
    assert re.fullmatch(
        r"interrupted after \d\.\ds: no image was made, and no working container is left; "
        "1 step that had ended is remembered",
        lines[2],
    )
    assert builda("containers", "-q") == ""


def test_narrow_and_small_terminals_wrap_nothing(builda: Builda, write: Write) -> None:
    context = write(f"FROM BASE\nRUN {SLOW}; echo 日本語日本語日本語日本語日本語日本語\n")
    for size in ((24, 30), (3, 12), (24, 5)):
        shown = on_terminal([*builda.command, "bud", "--no-cache", str(context)], size=size)
        assert shown.status == 0
        live, final = shown.text.split("COMMIT")
        screen = Screen(size[1])
        screen.feed(live)
        assert re.fullmatch(r"built in \d\.\ds: 2 steps, 0 cached", "".join(screen.rows[2:])), screen.rows
        assert "-->" in final


def test_a_terminal_that_becomes_narrower_keeps_nothing_of_the_view(builda: Builda, write: Write) -> None:
    resized: list[int] = []

    def resize(pid: int, terminal: int, text: str) -> None:
        if "line-5" in text and not resized:
            resized.append(len(text))
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))

    shown = on_terminal([*builda.command, "bud", str(write(f"FROM BASE\nRUN {SLOW}\n"))], act=resize)
    before, after = shown.text[: resized[0]], shown.text[resized[0] :]
    screen = Screen(80)
    screen.feed(before)
    narrow = Screen(40)
    narrow.feed("\r\n".join(screen.rows))  # what a terminal that rewraps its lines makes of them
    narrow.feed(after)
    assert [line for line in narrow.text.splitlines() if "line-" in line or re.search(r" \d\.\ds$", line)] == []


@pytest.mark.parametrize(
    ("args", "environ"),
    [(["--progress=plain"], {}), (["-q"], {}), ([], {"TERM": "dumb"}), ([], {"BUILDA_PROGRESS": "plain"})],
)
def test_the_view_can_be_done_without(builda: Builda, write: Write, args: list[str], environ: dict[str, Any]) -> None:
    context = write("FROM BASE\nRUN echo printed; sleep 0.3\n")
    shown = on_terminal([*builda.command, "bud", *args, str(context)], **environ)
    assert shown.status == 0
    assert "\x1b" not in shown.text
    assert ("printed\r\n" in shown.text) == ("-q" not in args)
    assert ("STEP 2/2: RUN" in shown.text) == ("-q" not in args)


def test_an_error_has_colours_on_a_terminal_that_takes_them(builda: Builda, write: Write) -> None:
    command = [*builda.command, "bud", str(write("FROM BASE\nRUNN x\n"))]
    shown = on_terminal(command)
    assert "\x1b[1;31mError:\x1b[0m " in shown.text
    assert "\x1b[1m>    2 | RUNN x\x1b[0m" in shown.text
    assert "\x1b[36mhint:\x1b[0m did you mean RUN?" in shown.text
    plain = on_terminal(command, TERM="dumb").text
    assert "\x1b" not in plain
    without = on_terminal(command, NO_COLOR="1").screen(200)  # a slow machine has shown a live view before
    assert without.colours == 0
    assert shown.screen(200).text == without.text == plain.replace("\r\n", "\n").rstrip()


def test_no_color_means_no_colours(builda: Builda, write: Write) -> None:
    context = write("FROM BASE\nRUN sleep 0.3\n")
    assert on_terminal([*builda.command, "bud", str(context)], NO_COLOR="1").screen().colours == 0
    assert on_terminal([*builda.command, "bud", "--no-cache", str(context)]).screen().colours > 0


def test_a_program_that_reads_stdout_gets_all_lines(builda: Builda, write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    context = write("FROM BASE\nRUN echo printed; sleep 0.3\n")
    shown = on_terminal([*builda.command, "bud", str(context)], stdout=out)
    lines = out.read_text().splitlines()
    assert lines[:3] == ["STEP 1/2: FROM localhost/busybox:latest", "STEP 2/2: RUN echo printed; sleep 0.3", "printed"]
    assert lines[3] == "COMMIT"
    assert "\x1b" not in out.read_text()
    assert "2/2 RUN echo printed" in shown.screen().text


def test_tty_is_refused_without_a_terminal(builda: Builda, write: Write) -> None:
    context = write("FROM BASE\n")
    assert "--progress=tty needs a terminal" in builda.fails("bud", "--progress=tty", context)
    assert "unknown --progress: fancy" in builda.fails("bud", "--progress=fancy", context)


def test_without_a_terminal_finished_steps_have_a_line_on_stderr(builda: Builda, write: Write) -> None:
    context = write("FROM BASE AS a\nENV A=b\nRUN head -c 100000 /dev/urandom > /f\nFROM a\nRUN true\n")
    result = builda.run("bud", "-t", "made", context)
    assert [line for line in result.stdout.splitlines() if len(line) != 64 and not line.startswith("--> ")] == [
        "[1/2] STEP 1/3: FROM localhost/busybox:latest AS a",
        "[1/2] STEP 2/3: ENV A=b",
        "[1/2] STEP 3/3: RUN head -c 100000 /dev/urandom > /f",
        "[2/2] STEP 1/2: FROM a",
        "[2/2] STEP 2/2: RUN true",
        "[2/2] COMMIT made",
        "Successfully tagged localhost/made:latest",
    ]
    first, second = sorted(line for line in result.stderr.splitlines() if not line.startswith("unpack "))
    assert re.fullmatch(r"\[1/2\] 3/3 done: \d\.\d\ds, 100 KB", first)
    assert re.fullmatch(r"\[2/2\] 2/2 done: \d\.\d\ds", second)
    assert builda.run("bud", context).stderr == ""


def test_nothing_is_erased_as_a_whole_and_no_frame_scrolls(builda: Builda, write: Write) -> None:
    """tmux keeps a screen that is erased from its top in its scroll-back; ten a second flood it."""
    stages = "".join(f"FROM BASE AS s{i}\nRUN sleep 0.{i + 3}; echo {i}; sleep 0.5\n" for i in range(6))
    copies = "".join(f"COPY --from=s{i} /etc /{i}\n" for i in range(6))
    context = write(f"{stages}FROM BASE\n{copies}")
    shown = on_terminal([*builda.command, "bud", "--jobs", "0", str(context)], size=(10, 60))
    assert shown.status == 0
    live = shown.text.split("[7/7] COMMIT")[0]
    assert not re.search(r"\x1b\[[0-9;]*[JHL]", live)
    screen = Screen(60)
    screen.feed(live)
    assert len(screen.rows) - 1 == 12 + 7 + 1  # every step, and what it took


def test_a_stage_that_fails_says_so_while_others_still_run(builda: Builda, write: Write) -> None:
    text = "FROM BASE AS a\nRUN sleep 0.3; exit 7\nFROM BASE AS b\nRUN sleep 2\nFROM a\nCOPY --from=b /etc /b\n"
    shown = on_terminal([*builda.command, "bud", "--jobs", "2", str(write(text))])
    assert shown.status == 7
    lines = shown.screen(120).text.splitlines()
    (failed,) = [line for line in lines if "failed after" in line and line.startswith("[1/3] 2/2 RUN")]
    (stopped,) = [line for line in lines if line.startswith("[2/3] 2/2 RUN sleep 2  ")]
    assert lines.index(failed) < lines.index(stopped)


def test_an_interrupt_ends_all_stages_and_says_what_is_left(builda: Builda, write: Write) -> None:
    sent: list[int] = []

    def interrupt(pid: int, terminal: int, text: str) -> None:
        if "ready-a" in text and "ready-b" in text and not sent:
            sent.append(pid)
            os.write(terminal, b"\x03")

    text = "FROM BASE AS a\nRUN echo ready-a; sleep 60\nFROM BASE AS b\nRUN echo ready-b; sleep 60\n"
    context = write(f"{text}FROM a\nCOPY --from=b /etc /b\n")
    shown = on_terminal([*builda.command, "bud", "--jobs", "2", str(context)], act=interrupt)
    assert shown.status == 130
    lines = shown.screen(200).text.replace("^C", "").splitlines()
    assert sorted(line.split()[0] for line in lines if " stopped after " in line) == ["[1/3]", "[2/3]"]
    assert "interrupted after" in lines[-1]
    assert "2 steps that had ended are remembered" in lines[-1]
    assert builda("containers", "-q") == ""
