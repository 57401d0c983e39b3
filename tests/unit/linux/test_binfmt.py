"""What the files of binfmt_misc say of emulators."""

from __future__ import annotations

from pathlib import Path

import pytest

from builda.linux import binfmt

AARCH64 = """enabled
interpreter /usr/bin/qemu-aarch64-static
flags: {flags}
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""


def place(tmp_path: Path, text: str) -> str:
    (tmp_path / "register").write_text("")
    (tmp_path / "status").write_text("enabled\n")
    (tmp_path / "qemu-aarch64").write_text(text)
    return str(tmp_path)


def test_a_registered_emulator_runs_its_processor_and_no_other(tmp_path: Path) -> None:
    where = place(tmp_path, AARCH64.format(flags="OCF"))
    assert binfmt.runs("arm64", "amd64", where)
    assert not binfmt.runs("s390x", "amd64", where)
    assert not binfmt.runs("riscv64", "amd64", where)


@pytest.mark.parametrize(
    "text",
    [
        AARCH64.format(flags="OC"),
        AARCH64.format(flags="F").replace("enabled", "disabled"),
        "enabled\ninterpreter /x\nflags: F\nextension .py\n",
        AARCH64.format(flags="F").replace("7f45", "zz45"),
        "",
    ],
)
def test_what_does_not_help_in_a_container_does_not_count(tmp_path: Path, text: str) -> None:
    assert not binfmt.runs("arm64", "amd64", place(tmp_path, text))


def test_kernels_run_their_own_and_their_smaller_kind(tmp_path: Path) -> None:
    where = str(tmp_path / "nowhere")
    assert binfmt.runs("amd64", "amd64", where)
    assert binfmt.runs("386", "amd64", where)
    assert not binfmt.runs("arm64", "amd64", where)
    assert not binfmt.runs("no-such", "amd64", where)
