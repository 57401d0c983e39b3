"""Random calls with paths in a root directory of one's own, and in mode `traced`: tests/pathcalls/pathcalls.c."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import builda

Both = Callable[[list[str]], tuple[str, str]]
"""What the program prints for these runs as it should be, and in a mode."""
SOURCE = Path(__file__).parents[1] / "pathcalls"
FOUND = SOURCE / "found.txt"
"""Runs that once differed."""
MARKER = "outside-marker"
CAPABILITIES = (
    "chown,dac_override,fsetid,fowner,mknod,net_raw,setgid,setuid,setfcap,setpcap,net_bind_service,sys_chroot,kill,"
    "audit_write"
)
NODES = {"null": "1 3", "zero": "1 5", "full": "1 7", "random": "1 8", "urandom": "1 9", "tty": "5 0"}
_FAILED = re.compile(r" = (E[A-Z0-9]+)$")
_NO_NAME = re.compile(r"(?<= mode=)(1[24]0\d{3}|10\d{3}) uid=\d+ gid=\d+(?= nlink=0)")
"""The owner of a link, socket or FIFO that has no name any more."""
_SAME_OBJECTS = re.compile(r"(?<= )(\d+ )?(?=(/[^ ]*)?/#\d)|(?<=/#)\d+|(\d+ )?/proc/\d+(/task/\d+)?")
"""Numbers that depend on the process, or on the inode of a file without a name; with the length of the text."""


_CHILD = """
import errno, os, sys
for name, path in (("builda", ""), ("builda.linux", "/linux"), ("builda.isolation", "/isolation"),
                   ("builda.isolation.child", "/isolation/child")):
    sys.modules[name] = module = type(sys)(name)
    module.__path__ = [{package!r} + path]
from builda.isolation.child import bpf, emulated_calls, enter
from builda.linux import landlock, syscalls
calls = {calls}
syscalls.is_in_memory = lambda fd: False  # so that syncs are answered
syscalls.set_seccomp_filter(bpf.program(emulated_calls.ARCHITECTURES[os.uname().machine], calls))
enter.main()
"""
NO_LANDLOCK = "tuple(bpf.Catch(number, errno=errno.ENOSYS) for number in (444, 445, 446))"
"""What the kernel refuses where it has no Landlock."""
NO_NOTIFICATIONS = (
    '(bpf.Catch(syscalls.SYS_SECCOMP[os.uname().machine], (bpf.Condition(1, "any", (8,)),), errno.EINVAL),)'
)
"""What the kernel refuses where it hands no calls over: SECCOMP_FILTER_FLAG_NEW_LISTENER."""


def child_without(calls: str, directory: Path) -> str:
    """The path of a program that starts builda's child where the kernel refuses calls, NO_LANDLOCK for example."""
    script = directory / "child.py"
    script.write_text(_CHILD.format(package=os.path.dirname(builda.__file__), calls=calls))
    return str(script)


def compiled(name: str, directory: Path) -> Path:
    """A static program from tests/pathcalls."""
    made = directory / name
    subprocess.run(["cc", "-static", "-pthread", "-O1", "-o", made, SOURCE / f"{name}.c"], check=True)
    return made


def in_chroot(program: Path, place: Path, *arguments: str) -> str:
    """What the program prints where chroot(2) gave it a root directory, with the capabilities of a container."""
    nodes = "\n".join(f"mknod -m 666 dev/{name} c {number}" for name, number in NODES.items())
    place.mkdir(exist_ok=True)
    script = f"""
mount -t tmpfs -o mode=755 tmpfs {place}; cd {place}; mkdir etc proc sys dev tmp root; cp {program} root
mount -t proc -o ro,nosuid,nodev,noexec proc proc
{nodes}
ln -s /proc/self/fd dev/fd
exec setpriv --inh-caps=-all --bounding-set=-all,+{CAPABILITIES.replace(",", ",+")} \\
  chroot {place} /root/{program.name} "$@\""""
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-ec", script, "sh", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_traced(program: Path, new_box: Callable[..., Any], *arguments: str) -> str:
    """The same in mode `traced`, in a new root directory."""
    box = new_box("native")
    for path in (*box.rootfs.glob("bin/*"), *box.rootfs.glob("etc/*")):
        path.unlink()
    with suppress(FileNotFoundError):
        (box.rootfs / "bin").rmdir()
    box.trace()
    for name in NODES:
        (box.rootfs / "dev" / name).touch()
    if not (box.rootfs / "dev/fd").is_symlink():
        (box.rootfs / "dev/fd").symlink_to("/proc/self/fd")
    (box.rootfs / "tmp").chmod(0o755)
    shutil.copy(program, box.rootfs / "root")
    status = box.run(f"/root/{program.name}", *arguments)
    assert status == 0, (status, box.output[-2000:])
    output: str = box.output
    return output


def in_single(program: Path, place: Path, *arguments: str) -> str:
    """The same in mode `single`, with one id."""
    inside = ("unshare", "-Um", "--map-root-user", "--propagation", "private")
    done = subprocess.run(
        [*inside, sys.executable, "-m", "tests.support.pathcalls_single", place, program, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        cwd=SOURCE.parents[1],
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:], done.stdout[-2000:])
    return done.stdout


def runs(output: str) -> list[list[str]]:
    """The lines of each run that pathcalls has printed."""
    found: list[list[str]] = []
    for line in output.splitlines():
        if line.startswith("run "):
            found.append([])
        elif not line.startswith("builda: "):  # it tells of programs that the mode cannot run
            found[-1].append(line)
    return found


def first_difference(expected: list[str], found: list[str]) -> int | None:
    """The index of the first line that differs, by more than docs/rootless.md says; None if there is none."""
    for at, line in enumerate(expected):
        other = found[at] if at < len(found) else "(end)"
        if re.match(r"\d+ (openat2|link)", line) and "= E" not in line and other.endswith("= EXDEV"):
            return None  # one has a descriptor, or a name of a device, that the other lacks from here on
        if line != other and not _may_differ(line, other):
            return at
    return len(expected) if len(found) > len(expected) else None


def made_before(lines: list[str], at: int) -> list[int]:
    """The numbers of the calls up to the line with this index."""
    numbers = (re.match(r"\d+", line) for line in lines[: at + 1])
    return list(dict.fromkeys(int(number[0]) for number in numbers if number))


def fewest_calls(both: Both, seed: str, numbers: list[int]) -> list[int]:
    """A few of the calls, in order, that still return something else: none of them can be left out alone."""

    def which_differ(candidates: list[list[int]]) -> list[bool]:
        words = [f"{seed}={','.join(map(str, each))}" for each in candidates]
        expected, found = (runs(output) for output in both(words))
        return [first_difference(*pair) is not None for pair in zip(expected, found, strict=True)]

    size = (len(numbers) + 7) // 8
    while numbers:
        chunks = [numbers[at : at + size] for at in range(0, len(numbers), size)]
        without = [[number for number in numbers if number not in chunk] for chunk in chunks]
        spare = [chunk for chunk, differs in zip(chunks, which_differ(without), strict=True) if differs]
        if not spare:
            if size == 1:
                break
            size = (size + 1) // 2
            continue
        halves = [spare[:count] for count in (len(spare), (len(spare) + 1) // 2, 1)]
        fewer = [[number for number in numbers if not any(number in chunk for chunk in half)] for half in halves]
        numbers = next(each for each, differs in zip(fewer, which_differ(fewer), strict=True) if differs)
    return numbers


def reproduction(both: Both, seed: str, numbers: list[int]) -> str:
    """The fewest calls of a seed that return something else, and the argument of pathcalls that makes them."""
    run = f"{seed}={','.join(map(str, fewest_calls(both, seed, numbers)))}"
    expected, found = (runs(output)[0] for output in both([run]))
    at = first_difference(expected, found)
    if at is None:
        return f"seed {seed}: the calls {numbers} differ, but not again"
    lines = (expected[at : at + 1] or ["(end)"])[0], (found[at : at + 1] or ["(end)"])[0]
    return "\n".join([f"pathcalls {run}", *expected[:at], f"expected {lines[0]}", f"found    {lines[1]}"])


def outside_of_trees(directory: Path) -> Path:
    """A new directory with a marker, in which everybody may write: no command in a tree is to reach it."""
    path = directory / "outside"
    path.mkdir()
    (path / "marker").write_text(MARKER)
    for each in (path, path / "marker"):
        each.chmod(0o777)
    return path


def state(directory: Path) -> list[tuple[object, ...]]:
    """All that a command could have changed in a directory and above it."""
    rows: list[tuple[object, ...]] = []
    for path in (directory.parent / "rootfs" / "..", directory, *sorted(directory.rglob("*"))):
        info = path.lstat()
        content = path.read_text() if path.is_file() else ""
        row = (
            info.st_mode,
            info.st_uid,
            info.st_gid,
            info.st_mtime_ns if path.name != ".." else info.st_mtime_ns < 10**10,
        )
        rows.append((path.name, content, *row, info.st_nlink if path.is_file() else 0, tuple(os.listxattr(path))))
    return rows


def _may_differ(line: str, other: str) -> bool:
    """Whether docs/rootless.md says that a line may be another one."""
    if _SAME_OBJECTS.sub("", line) == _SAME_OBJECTS.sub("", other):
        return True
    if " (unreachable)/" in line and " (unreachable)/" in other:
        wanted_end, end = (_SAME_OBJECTS.sub("", each.partition(" (unreachable)")[2]) for each in (line, other))
        return wanted_end.endswith(end.rstrip("/"))  # the kernel shows the chroot's own directory before it
    if "getcwd" in line and {line.partition(" = ")[2][:6], other.partition(" = ")[2][:6]} == {"ERANGE", "/proc/"}:
        return True  # the number of a process is longer than the buffer
    if " uid=0 gid=0 nlink=0" in other and _NO_NAME.sub(r"\1", line) == _NO_NAME.sub(r"\1", other):
        return True
    if line.partition(" = ")[0] != other.partition(" = ")[0] and "status=" not in line:
        return False
    wanted, got = (_FAILED.search(each) for each in (line, other))
    if got is None:
        return False
    what = (wanted[1] if wanted is not None else "", got[1])
    if "execve" in line:
        if got[1] == "EACCES":
            return what[0] in ("", "ETXTBSY", "ENOEXEC")  # its owner may not execute it, but others may
        return what == ("ETXTBSY", "ENOEXEC")
    if "inotify_add_watch" in line:
        return wanted is None and got[1] == "EACCES"  # its mode denies the owner to read it
    if what == ("EROFS", "ECONNREFUSED"):
        return "connect" in line or "sendto" in line  # to a file of /proc, which the tests see read-only
    if got[1] == "ENOENT" and re.search(r"/fd/\d+/[./]*\.\.", line):
        return True  # two directories that were removed, or a new name above one
    if what == ("ECONNREFUSED", "ENAMETOOLONG"):
        return True  # the name of a socket
    if what in (("ENXIO", "EACCES"), ("ECONNREFUSED", "EACCES")):
        return True  # a whiteout, FIFO or socket whose mode denies its owner
    if what == ("EOPNOTSUPP", "EACCES"):
        return "xattr(" in line  # an unknown attribute of a whiteout
    if "openat2" in line and got[1] == "EXDEV":
        return True
    return " in /proc" in line and got[1] in ("EPERM", "EACCES")
