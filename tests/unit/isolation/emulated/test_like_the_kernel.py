"""Random calls about ids and capabilities: each has the kernel's result, and leaves the kernel's credentials."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builda.isolation.emulated import idcalls
from builda.isolation.emulated.credentials import ALL_CAPABILITIES, NO_ID, Credentials
from builda.isolation.emulated.execution import Program, changes_nothing, executed
from tests.support import needs

pytestmark = [pytest.mark.root, needs.program("unshare")]

IDS = (0, 0, 33, 1000, 1001, NO_ID)
# Numbers are those of x86-64 and aarch64.
NUMBERS = {
    "x86_64": {
        "setuid": 105,
        "setgid": 106,
        "setreuid": 113,
        "setregid": 114,
        "setgroups": 116,
        "setresuid": 117,
        "setresgid": 119,
        "setfsuid": 122,
        "setfsgid": 123,
        "capset": 126,
        "prctl": 157,
    },
    "aarch64": {
        "setuid": 146,
        "setgid": 144,
        "setreuid": 145,
        "setregid": 143,
        "setgroups": 159,
        "setresuid": 147,
        "setresgid": 149,
        "setfsuid": 151,
        "setfsgid": 152,
        "capset": 91,
        "prctl": 167,
    },
}[os.uname().machine]
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


class Buffers:
    """This process's own memory."""

    def read(self, address: int, size: int) -> bytes:
        return ctypes.string_at(address, size)

    def write(self, address: int, data: bytes) -> None:
        ctypes.memmove(address, data, len(data))


def capabilities(chance: random.Random, held: int) -> int:
    return chance.choice((0, held, held & chance.getrandbits(41), chance.getrandbits(41), 1 << 6 | 1 << 7 | 1 << 8))


def calls(chance: random.Random) -> Iterator[tuple[str, tuple[int, ...], object]]:
    """(name, arguments, the object that keeps their memory)."""
    while True:
        name = chance.choice([*NUMBERS, "setresuid", "setreuid", "prctl", "prctl"])
        if name == "setgroups":
            groups = [chance.choice(IDS) for _ in range(chance.randrange(4))]
            array = (ctypes.c_uint32 * len(groups))(*groups)
            yield name, (chance.choice((len(groups), len(groups), 65537)), ctypes.addressof(array)), array
        elif name == "capset":
            sets = [capabilities(chance, ALL_CAPABILITIES) for _ in range(3)]
            sets[0] &= sets[1]
            header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, chance.choice((0, 0, 0, 1))))
            words = b"".join(struct.pack("=III", *(each >> 32 * at & 0xFFFFFFFF for each in sets)) for at in (0, 1))
            data = ctypes.create_string_buffer(words)
            yield name, (ctypes.addressof(header), ctypes.addressof(data)), (header, data)
        elif name == "prctl":
            yield name, prctl(chance), None
        else:
            yield name, tuple(chance.choice(IDS) for _ in range(3)), None


def prctl(chance: random.Random) -> tuple[int, ...]:
    option = chance.choice((7, 8, 8, 23, 24, 27, 28, 47, 47))
    if option == 28:
        return option, chance.choice((0, 1, 2, 3, 4, 0x10, 0x20, 0x40, 0xC0, 0x1000)), 0, 0, 0
    if option == 47:
        return (
            option,
            chance.choice((1, 2, 2, 3, 4, 5)),
            chance.choice((0, 1, 6, 7, 40, 41, 99)),
            0,
            chance.choice((0, 0, 0, 1)),
        )
    return option, chance.choice((0, 1, 2, 6, 7, 8, 21, 40, 41, 64)), 0, 0, 0


def of_kernel() -> Credentials:
    """The credentials of this process by /proc and prctl(2)."""
    return of_status(Path("/proc/self/status").read_text(), LIBC.prctl(27, 0, 0, 0, 0))


def of_status(text: str, securebits: int) -> Credentials:
    """The credentials in a /proc/PID/status."""
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    uids, gids = (tuple(map(int, fields[key].split())) for key in ("Uid", "Gid"))
    sets = tuple(int(fields[key], 16) for key in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"))
    groups = tuple(map(int, fields["Groups"].split()))
    return Credentials._make((*uids, *gids, groups, *sets, securebits, fields["NoNewPrivs"] == "1"))


def in_child(body: Callable[..., str], *arguments: object) -> str:
    """What `body` returns in a forked process, which may lose its rights."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = body(*arguments)
        except BaseException as error:  # the parent shows it
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode()[:60000])
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


def compare(seed: int) -> str:
    chance = random.Random(seed)
    who = of_kernel()
    done: list[object] = []
    for name, arguments, kept in itertools.islice(calls(chance), chance.randrange(1, 25)):
        words = (*arguments, 0, 0, 0, 0, 0)[:5]
        done.append((name, words))
        try:
            value, new = idcalls.answer(name, words, who, Buffers(), lambda pid: pid == os.getpid())
        except OSError as error:
            value, new = -(error.errno or 0), who
        number = ctypes.c_long(NUMBERS[name])
        result = LIBC.syscall(number, *(ctypes.c_long(word) for word in words))
        result = -ctypes.get_errno() if result < 0 else result
        found = of_kernel()
        if (result, found) != (value, new):
            return f"{done}: kernel {result}, {found}; here {value}, {new}"
        who = new
        del kept
    return ""


def test_calls_have_the_kernels_results() -> None:
    wrong = [said for seed in range(80) if (said := in_child(compare, seed))]
    assert not wrong, "\n".join(wrong[:3])


def test_execve_changes_what_the_kernel_changes() -> None:
    said = subprocess.run(
        [
            "unshare",
            "--mount",
            sys.executable,
            "-c",
            "from tests.unit.isolation.emulated.test_like_the_kernel import execute_many; execute_many()",
        ],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout) == []


def execute_many() -> None:
    """Executions by chance on a file system without nosuid; prints those that went otherwise than here."""
    where = "/mnt"  # every user can reach it
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "none", where], check=True)
    chance = random.Random(4)
    wrong = []
    unequal = 0
    for number in range(80):
        program = made(chance, f"{where}/{number}")
        seen = in_child(run_program, number, *program)
        os.unlink(f"{where}/{number}")
        before, after = (Credentials._make(map(freeze, part)) if part else None for part in json.loads(seen))
        assert before is not None
        try:
            expected: Credentials | None = executed(before, program[1])
        except OSError:
            expected = None
        unequal += expected != before
        quick = changes_nothing(before, program[1]) and expected != before
        if quick or expected != after:
            wrong.append(f"{program} {before}: kernel {after}; here {expected}")
    assert unequal > 20
    print(json.dumps(wrong[:3]))


def freeze(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def made(chance: random.Random, path: str) -> tuple[str, Program]:
    shutil.copy("/bin/cat", path)
    uid, gid = chance.choice((0, 0, 33, 1000)), chance.choice((0, 33, 1000))
    mode = 0o755 | chance.choice((0, 0, 0o4000, 0o2000, 0o6000))
    os.chown(path, uid, gid)
    os.chmod(path, mode)
    value = b""
    if chance.random() < 0.4:
        permitted, inheritable = (chance.choice((0, 1 << 13, 1 << 7 | 1 << 40)) for _ in range(2))
        words = (permitted & 0xFFFFFFFF, inheritable & 0xFFFFFFFF, permitted >> 32, inheritable >> 32)
        value = struct.pack("<5I", 0x02000000 | chance.randrange(2), *words)
        os.setxattr(path, "security.capability", value)
    return path, Program(0o100000 | mode, uid, gid, value)


def run_program(seed: int, path: str, program: Program) -> str:
    """The credentials before and after the execution, as JSON."""
    chance = random.Random(seed)
    for name, arguments, kept in itertools.islice(calls(chance), chance.choice((0, 1, 3, 6))):
        words = (*arguments, 0, 0, 0, 0, 0)[:5]
        LIBC.syscall(ctypes.c_long(NUMBERS[name]), *(ctypes.c_long(word) for word in words))
        del kept
    if chance.random() < 0.2:
        LIBC.prctl(38, 1, 0, 0, 0)
    before = of_kernel()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        try:
            os.execv(path, [path, "/proc/self/status"])
        except OSError:
            os._exit(99)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        text = file.read()
    if os.waitpid(pid, 0)[1]:
        return json.dumps([before, None])
    return json.dumps([before, of_status(text, before.securebits & ~0x10)])
