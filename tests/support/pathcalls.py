"""Random calls with paths in a root directory of one's own, and in mode `traced`: tests/pathcalls/pathcalls.c."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "pathcalls"
CAPABILITIES = (
    "chown,dac_override,fsetid,fowner,mknod,net_raw,setgid,setuid,setfcap,setpcap,net_bind_service,sys_chroot,kill,"
    "audit_write"
)
NODES = {"null": "1 3", "zero": "1 5", "full": "1 7", "random": "1 8", "urandom": "1 9", "tty": "5 0"}
_FAILED = re.compile(r"(.*) = (E[A-Z0-9]+)$")
_SAME_OBJECTS = re.compile(r"/proc/\d+")


def compiled(name: str, directory: Path) -> Path:
    """A static program from tests/pathcalls."""
    made = directory / name
    subprocess.run(["cc", "-static", "-O1", "-o", made, SOURCE / f"{name}.c"], check=True)
    return made


def in_chroot(program: Path, place: Path, *arguments: str) -> str:
    """What the program prints where chroot(2) gave it a root directory, with the capabilities of a container."""
    nodes = "\n".join(f"mknod -m 666 dev/{name} c {number}" for name, number in NODES.items())
    script = f"""
mount -t tmpfs -o mode=755 tmpfs {place}; cd {place}; mkdir etc proc sys dev tmp root; cp {program} program
mount -t proc proc proc
{nodes}
ln -s /proc/self/fd dev/fd
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+{CAPABILITIES.replace(",", ",+")} \\
  chroot {place} /program {" ".join(arguments)}"""
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-ec", script],
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
    (box.rootfs / "bin").rmdir()
    box.trace()
    for name in NODES:
        (box.rootfs / "dev" / name).touch()
    (box.rootfs / "dev/fd").symlink_to("/proc/self/fd")
    (box.rootfs / "tmp").chmod(0o755)
    shutil.copy(program, box.rootfs / "program")
    status = box.run("/program", *arguments)
    assert status == 0, (status, box.output)
    output: str = box.output
    return output


def differences(expected: str, found: str) -> tuple[int, list[str]]:
    """(lines that are alike, the first line that differs and what it was): docs/rootless.md says what may differ."""
    ours, theirs = found.splitlines(), expected.splitlines()
    for at, line in enumerate(theirs):
        other = ours[at] if at < len(ours) else "(end)"
        if line != other and not _may_differ(line, other):
            return at, [*theirs[max(0, at - 3) : at], f"expected {line}", f"found    {other}"]
    return len(theirs), ["longer"] if len(ours) > len(theirs) else []


def _may_differ(line: str, other: str) -> bool:
    if _SAME_OBJECTS.sub("", line) == _SAME_OBJECTS.sub("", other):
        return True
    if "self/exe" in line or "security.capability" in line or ("(unreachable)" in line and "(unreachable)" in other):
        return True
    wanted, got = _FAILED.match(line), _FAILED.match(other)
    if got is not None and got[2] == "EPERM" and re.match(r"\d+ f(chown|chmod)\(", line):
        return True  # a file of /proc
    if wanted is None or got is None or wanted[1] != got[1]:
        return False
    both = (wanted[2], got[2])
    if got[2] in ("EPERM", "EACCES") or "openat2" in line or "/proc" in line or "/dev" in line:
        return True
    return both in (("ETXTBSY", "ENOEXEC"), ("ENOTDIR", "ENOENT"))
