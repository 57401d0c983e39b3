"""How mode `traced` starts programs: what their first bytes say, and programs of each kind beside the kernel."""

from __future__ import annotations

import errno
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builda.isolation.traced.programs import (
    Dynamic,
    Foreign,
    Script,
    Static,
    Vector,
    parse,
    through_loader,
    through_script,
)
from tests.support.pathcalls import compiled, in_traced
from tests.unit.isolation.conftest import answered as answered
from tests.unit.isolation.conftest import new_box as new_box  # the fixture, shared with the other tests

LOADER = b"/lib64/ld-linux-x86-64.so.2"


def elf(loader: bytes | None, *, machine: int = 62, bits: int = 2, order: int = 1, at: int = 0x200) -> bytes:
    """The beginning of an ELF file with one program header."""
    kind = 1 if loader is None else 3
    text = (loader or b"") + b"\0"
    head = b"\x7fELF" + bytes((bits, order, 1)) + bytes(9) + struct.pack("<HHIQQQI", 3, machine, 1, 0, 64, 0, 0)
    head += struct.pack("<HHHHHH", 64, 56, 1, 0, 0, 0)
    return (head + struct.pack("<IIQQQQQQ", kind, 4, at, 0, 0, len(text), len(text), 1)).ljust(at, b"\0") + text


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (elf(LOADER), Dynamic(LOADER)),
        (elf(b"/lib/ld-musl-x86_64.so.1"), Dynamic(b"/lib/ld-musl-x86_64.so.1")),
        (elf(None), Static()),
        (elf(LOADER, machine=183), Foreign()),
        (elf(LOADER, bits=1), Foreign()),
        (elf(LOADER, order=2), Foreign()),
        (b"#!/bin/sh\n", Script(b"/bin/sh", None)),
        (b"#! \t/bin/sh \t -e -x  \n", Script(b"/bin/sh", b"-e -x")),
        (b"#!/bin/sh", Script(b"/bin/sh", None)),
        (b"#!/bin/awk -f\nx", Script(b"/bin/awk", b"-f")),
        (b"#!/bin/sh\r\n", Script(b"/bin/sh\r", None)),
        (b"#!/bin/sh \v-e\0x\n", Script(b"/bin/sh", b"\v-e")),
        (b"#!/bin/sh\0 -e\n", Script(b"/bin/sh", None)),
        (b"#!/bin/sh " + b"x" * 300, Script(b"/bin/sh", b"x" * 246)),
    ],
)
def test_the_first_bytes_say_how_a_program_starts(head: bytes, found: object) -> None:
    assert parse(head, "x86_64") == found


@pytest.mark.parametrize(
    "head",
    [b"", b"echo hello\n", b"#!\n", b"#!   \n", b"#!" + b"x" * 300, b"\x7fELF", elf(LOADER, at=5000)[:4096], elf(b"")],
)
def test_what_the_kernel_could_not_execute_is_refused(head: bytes) -> None:
    with pytest.raises(OSError, match="execve") as caught:
        parse(head, "x86_64")
    assert caught.value.errno == errno.ENOEXEC


def test_arguments_through_a_script_and_a_loader() -> None:
    vector = through_script(Vector((b"./job",), 1), Script(b"/bin/sh", b"-e"), b"./job")
    assert vector == Vector((b"/bin/sh", b"-e", b"./job"), 1)
    named = through_loader(vector, LOADER, b"/bin/dash", name=b"/bin/sh")
    assert named == Vector((LOADER, b"--argv0", b"/bin/sh", b"/bin/dash", b"-e", b"./job"), 1)
    assert through_loader(vector, LOADER, b"/bin/dash", name=None).first == (LOADER, b"/bin/dash", b"-e", b"./job")


SHOW = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char exe[4096] = "";
    if (readlink("/proc/self/exe", exe, sizeof exe - 1) < 0) return 1;
    printf("%s", exe);
    for (int i = 0; i < argc; i++) printf(" [%s]", argv[i]);
    char name[17] = "", line[4096] = "";
    prctl(PR_GET_NAME, name);
    int size = read(open("/proc/self/cmdline", O_RDONLY), line, sizeof line);
    for (int i = 0; i < size; i++) if (!line[i]) line[i] = '|';
    printf(" (%s) %s\n", name, line);
}
"""
RUN = r"""
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
int main(int argc, char **argv) {
    if (argv[2] && !strcmp(argv[2], "written")) open(argv[1], O_RDWR);
    execv(argv[1], argv + 2);
    puts(strerrorname_np(errno));
}
"""
SCRIPTS = {
    "plain": "#!/bin/show\n",
    "with-argument": "#!/bin/show -a b\n",
    "nested": "#!/with-argument x\n",
    "script-of-musl": "#!/musl -a\n",
    "linked-interpreter": "#!/link\n",
    "without-interpreter": "#!/nowhere\n",
    "of-a-directory": "#!/bin\n",
    "carriage-return": "#!/bin/show\r\n",
    "form-feed": "#!/bin/show\f-a\n",
    "null": "#!/bin/show -a\0b\n",
    "no-program": "words\n",
    "empty": "",
}
STARTS = [
    ("/bin/show", "show", "a", "b c"),
    ("/bin/show", "another name"),
    ("/bin/show", ""),
    ("/bin/../bin/show", "show"),
    ("/link", "link"),
    ("/hard", "hard"),
    ("/long-name-of-a-link", "x"),
    ("/dynamic", "dynamic", "a"),
    ("/dynamic", "another name"),
    ("/pie", "pie"),
    ("/musl", "musl", "a"),
    ("/musl", "another name"),
    ("/static-musl", "another name"),
    ("/script-of-musl", "x", "one"),
    ("/proc/self/exe", "run", "/bin/show", "again"),
    *((f"/{name}", name, "one", "two") for name in SCRIPTS),
    ("/self", "self"),
    ("/dynamic", "written"),
    ("/bin/show", "written"),
    ("/plain", "written"),
    ("/missing-loader", "x"),
    ("/not-executable", "x"),
    ("/nowhere", "x"),
    ("/bin", "x"),
    ("/bin/show/x", "x"),
    ("/loop", "x"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root directory with programs of each kind; the loader and libc are the machine's."""
    root = tmp_path / "tree"
    for name in ("bin", "proc", "dev", "lib", "lib64", "usr"):
        (root / name).mkdir(parents=True)
    for name, source in (("show", SHOW), ("run", RUN)):
        (tmp_path / f"{name}.c").write_text("#define _GNU_SOURCE\n" + source)
    musl = shutil.which("musl-gcc")
    for compiler, source, made, *options in (
        ("cc", "show", "bin/show", "-static"),
        ("cc", "show", "dynamic"),
        ("cc", "show", "pie", "-static-pie"),
        ("cc", "show", "missing-loader", "-Wl,--dynamic-linker=/nowhere/ld.so"),
        ("cc", "run", "run", "-static"),
        (musl or "cc", "show", "musl"),
        (musl or "cc", "show", "static-musl", "-static"),
    ):
        subprocess.run([compiler, "-w", *options, "-o", root / made, tmp_path / f"{source}.c"], check=True)
    if musl:
        shutil.copy("/lib/ld-musl-x86_64.so.1", root / "lib")
    loader = Path("/lib64/ld-linux-x86-64.so.2").resolve()
    shutil.copy(loader, root / "lib64/ld-linux-x86-64.so.2")
    library = next(Path("/").glob("lib/x86_64-linux-gnu/libc.so.6"))
    (root / "lib/x86_64-linux-gnu").mkdir()
    shutil.copy(library.resolve(), root / "lib/x86_64-linux-gnu/libc.so.6")
    (root / "link").symlink_to("bin/show")
    (root / "loop").symlink_to("loop")
    (root / "long-name-of-a-link").symlink_to("dynamic")
    (root / "hard").hardlink_to(root / "bin/show")
    (root / "not-executable").write_text("#!/bin/show\n")
    (root / "self").write_text("#!/self\n")
    for name, text in SCRIPTS.items():
        (root / name).write_text(text)
    for name in (*SCRIPTS, "self"):
        (root / name).chmod(0o755)
    return root


@pytest.mark.root
@pytest.mark.usefixtures("answered")
def test_programs_start_as_the_kernel_starts_them(tree: Path, new_box: Callable[..., Any]) -> None:
    box = new_box("native")
    shutil.rmtree(box.rootfs, ignore_errors=True)
    shutil.copytree(tree, box.rootfs, symlinks=True, dirs_exist_ok=True)
    box.trace()
    expected = {}
    found = {}
    script = 'mount -t proc proc $0/proc && exec chroot $0 /run "$@"'
    for start in STARTS:
        done = subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", script, tree, *start],
            capture_output=True,
            text=True,
        )
        expected[start] = done.stdout
        box.run("/run", *start)
        found[start] = "".join(line for line in box.output.splitlines(True) if not line.startswith("builda:"))
    assert expected["/dynamic", "dynamic", "a"] == "/dynamic [dynamic] [a] (dynamic) dynamic|a|\n"
    assert expected["/dynamic", "written"] == "ETXTBSY\n"
    assert found == expected


@pytest.mark.root
@pytest.mark.parametrize("rounds", [20, pytest.param(1000, marks=pytest.mark.long)])
def test_a_program_that_opens_many_files_keeps_its_processors(
    rounds: int, tmp_path: Path, new_box: Callable[..., Any]
) -> None:
    assert in_traced(compiled("processors", tmp_path), new_box, str(rounds)) == "done\n"


@pytest.mark.root
@pytest.mark.usefixtures("answered")
def test_a_program_that_closes_all_descriptors_still_opens_files(tmp_path: Path, new_box: Callable[..., Any]) -> None:
    assert in_traced(compiled("closing", tmp_path), new_box, "1") == "done\n"
