"""Commands in a plain directory without mounts: /proc and /dev are served, and writes stay inside."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builda.errors import CommandFailed, IsolationUnavailable
from builda.isolation import isolation_for
from builda.isolation.spec import User
from builda.linux.mount import Mount

pytestmark = pytest.mark.root
HOSTILE = """
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
struct how { unsigned long long flags, mode, resolve; };
#define TRY(text, call) do { errno = 0; call; printf("%s: %s\\n", text, strerror(errno)); } while (0)
static char *at(const char *format, const char *process, const char *rest) {
    static char path[4096];
    snprintf(path, sizeof path, format, process, rest);
    return path;
}
int main(int count, char **words) {
    const char *outside = words[1], *file = words[2];
    char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), number[16];
    struct how odd = {1ULL << 40, 0, 0};
    munmap(page + 4096, 4096);
    TRY("readlink to nowhere", syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", -1L, 10));
    TRY("stat to nowhere", syscall(SYS_newfstatat, AT_FDCWD, "/proc/stat", -1L, 0));
    TRY("openat2 from nowhere", syscall(SYS_openat2, AT_FDCWD, "/proc/stat", -1L, 24));
    TRY("openat2 from an edge", syscall(SYS_openat2, AT_FDCWD, "/proc/stat", page + 4088, 24));
    TRY("openat2 with odd flags", syscall(SYS_openat2, AT_FDCWD, "/proc/stat", &odd, sizeof odd));
    TRY("open with odd flags", syscall(SYS_openat, AT_FDCWD, "/proc/stat", 0x80000000L, 0));
    TRY("path only", open("/proc/self/fd/0", O_PATH));
    snprintf(number, sizeof number, "%d", getppid());
    TRY("supervisor's memory", open(at("/proc/%s/mem", number, ""), O_RDWR));
    TRY("supervisor's memory, to read", open(at("/proc/%s/mem", number, ""), O_RDONLY));
    TRY("builda's memory", open(at("/proc/%s/mem", outside, ""), O_RDWR));
    TRY("builda's environment", open(at("/proc/%s/environ", outside, ""), O_RDONLY));
    TRY("builda's root", open(at("/proc/%s/root%s", outside, file), O_WRONLY));
    TRY("slashes", open(at("/proc//%s//root%s", outside, file), O_WRONLY));
    TRY("dots", open(at("/proc/./%s/./root%s", outside, file), O_WRONLY));
    TRY("kernel", open("/proc/sys/kernel/domainname", O_WRONLY));
    int memory = open("/proc/./self/mem", O_RDWR);
    page[0] = 'a';
    pwrite(memory, "b", 1, (off_t)page);
    printf("own memory: %c\\n", page[0]);
    mkdir("/sub", 0755);
    chroot("/sub");
    for (int i = 0; i < 64; i++) chdir("..");
    int found = open(file + 1, O_RDONLY);
    snprintf(number, sizeof number, "%d", found);
    TRY("escaped", open(file + 1, O_WRONLY));
    printf("can read: %d\\n", found >= 0);
    TRY("own descriptor", open(at("/proc/self/fd/%s", number, ""), O_WRONLY));
    TRY("cut", open(at("/proc/self/fd/%s", number, ""), O_RDONLY | O_TRUNC));
    return 0;
}
"""
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
C = """
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
struct how { unsigned long long flags, mode, resolve; };
#define TRY(text, call) errno = 0; call; printf("%s %s\\n", text, strerror(errno))
int main(void) {
    struct stat found;
    char small[4] = "....";
    struct how how = {O_RDONLY, 0, 0};
    int fd;
    TRY("bad pointer", open((char *)8, O_RDONLY));
    TRY("bad buffer", syscall(SYS_newfstatat, AT_FDCWD, "/proc/stat", (void *)8, 0));
    TRY("missing", open("/proc/nothing", O_RDONLY));
    TRY("no directory", open("/proc/stat/x", O_RDONLY));
    TRY("access", access("/proc/self/status", R_OK));
    TRY("no access", access("/proc/nothing", R_OK));
    TRY("openat2", syscall(SYS_openat2, AT_FDCWD, "/proc/self/stat", &how, sizeof how));
    TRY("odd", open("//proc/./self/stat", O_RDONLY));
    TRY("up", open("/proc/../nothing", O_RDONLY));
    fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    printf("cloexec %d\\n", fcntl(fd, F_GETFD));
    printf("link %zd %.4s\\n", readlink("/proc/self/exe", small, 3), small);
    printf("self %d\\n", lstat("/proc/self", &found) == 0 && S_ISLNK(found.st_mode));
    return 0;
}
"""


@pytest.fixture
def tree(new_box: Callable[[str], Any]) -> Any:
    """Runs commands in a busybox tree with device nodes, as a builder places them."""
    box = new_box("native")
    box.isolation = isolation_for(None, state=box.scratch, can_mount=False)
    for name in ("dev", "proc", "tmp"):
        (box.rootfs / name).mkdir(exist_ok=True)
    for name, device in NODES.items():
        os.mknod(box.rootfs / "dev" / name, 0o20666, os.makedev(*device))
        (box.rootfs / "dev" / name).chmod(0o666)
    for name, link in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (box.rootfs / "dev" / name).symlink_to(f"/proc/self/{link}")
    box.sandbox = box.sandbox.__class__(
        **{name: getattr(box.sandbox, name) for name in box.sandbox.__dataclass_fields__} | {"network": "host"}
    )
    return box


def compiled(path: Path, source: str) -> Path:
    """A static program."""
    (path / "probe.c").write_text(source)
    subprocess.run(["gcc", "-static", "-w", "-D_GNU_SOURCE", "-o", path / "probe", path / "probe.c"], check=True)
    return path / "probe"


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that makes calls as no shell does."""
    return compiled(tmp_path_factory.mktemp("probe"), C)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that wants the supervisor to fall over, or to write for it where it may not."""
    return compiled(tmp_path_factory.mktemp("hostile"), HOSTILE)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("head -n 1 /proc/self/status", "Name:\thead\n"),
        ("readlink /proc/self/exe", "/bin/busybox\n"),
        ("readlink /proc/self/cwd", "/tmp\n"),
        ("readlink /proc/self/root", "/\n"),
        ("[ $(readlink /proc/self) = $(cut -d ' ' -f 1 /proc/self/stat) ] || echo same", "same\n"),
        ("ls -l /proc/self/exe | sed 's/.* -> //'", "/bin/busybox\n"),
        ("stat -c %F /proc /proc/self /proc/$$", "directory\nsymbolic link\ndirectory\n"),
        ("ls /proc 2> /dev/null | grep -cx $$", "1\n"),  # others may end while it looks
        ("ps -o pid,comm | grep -w $$ | awk '{ print $2 }'", "sh\n"),
        ("echo out > /dev/stdout", "out\n"),
        ("echo fd | cat /dev/fd/0 /dev/stdin", "fd\n"),
        ("echo x > /dev/null; wc -c < /dev/null", "0\n"),
        ("(echo x > /dev/full) 2> /dev/null || echo full", "full\n"),
        ("head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c", "3\n5\n"),
        ("test -e /proc/nothing || echo none", "none\n"),
        ("cd /proc/self 2> /dev/null || echo no; ls -d /etc", "no\n/etc\n"),
        ("mkfifo f; (echo a > f) & cat f; wait; rm f", "a\n"),
        ("echo $$ > /tmp/pid; exec cat /proc/$$/comm", "cat\n"),
    ],
)
@pytest.mark.parametrize("nodes", [True, False], ids=["nodes", "placeholders"])
def test_what_a_command_sees(tree: Any, script: str, said: str, nodes: bool) -> None:
    if not nodes:
        for name in NODES:
            (tree.rootfs / "dev" / name).unlink()
            (tree.rootfs / "dev" / name).touch(0o666)
    assert tree.shell(f"cd /tmp; {script}") == said


def test_calls_that_no_shell_makes(tree: Any, probe: Path) -> None:
    (tree.rootfs / "probe").write_bytes(probe.read_bytes())
    (tree.rootfs / "probe").chmod(0o755)
    assert tree.shell("/probe").splitlines() == [
        "bad pointer Bad address",
        "bad buffer Bad address",
        "missing No such file or directory",
        "no directory Not a directory",
        "access Success",
        "no access No such file or directory",
        "openat2 Success",
        "odd Success",
        "up No such file or directory",
        "cloexec 1",
        "link 3 /pr.",
        "self 1",
    ]


def test_the_list_of_mounts_is_found_by_its_link(tree: Any) -> None:
    (tree.rootfs / "etc/mtab").symlink_to("../proc/self/mounts")
    assert tree.run("sh", "-c", "cat /etc/mtab") == 0, tree.output
    assert tree.shell("readlink /etc/mtab") == "../proc/self/mounts\n"


def test_another_user_sees_what_is_its_own(tree: Any) -> None:
    user = User(uid=1234, gid=1234)
    assert tree.shell("grep Uid /proc/self/status | cut -f 2; readlink /proc/self/exe", user=user) == (
        "1234\n/bin/busybox\n"
    )
    assert tree.run("cat", "/proc/1/environ", user=user) == 1
    assert "Permission denied" in tree.output
    assert tree.run("cat", "/proc/vmallocinfo") == 0
    assert tree.run("cat", "/proc/vmallocinfo", user=user) == 1, "opened with root's rights"


def test_a_command_becomes_another_user_and_goes_on(tree: Any) -> None:
    (tree.rootfs / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nx:x:77:77::/:/bin/sh\n")
    assert tree.shell("su x -c 'id -u; grep Gid /proc/self/status | cut -f 2'") == "77\n77\n"


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_the_status_is_the_commands(tree: Any, script: str, status: int) -> None:
    assert tree.run("sh", "-c", script) == status


def test_what_cannot_be_executed_is_named(tree: Any) -> None:
    with pytest.raises(CommandFailed, match="no such command in the container: nothing") as caught:
        tree.run("nothing")
    assert caught.value.status == 127


def test_nothing_outlives_the_command(tree: Any) -> None:
    marker = f"9{os.getpid()}{time.time_ns() % 10**6}"
    tree.shell(f"(sleep {marker} &) ; setsid sleep {marker} & sleep 0.1")
    assert subprocess.run(["pgrep", "-f", f"sleep {marker}"], stdout=subprocess.DEVNULL, check=False).returncode == 1


def test_orphans_are_reaped_while_the_command_runs(tree: Any) -> None:
    script = "(sh -c 'echo $$ > /tmp/p; exit 0' &) ; sleep 0.3; test -e /proc/$(cat /tmp/p) || echo reaped"
    assert tree.shell(script) == "reaped\n"


def test_writes_stay_in_the_tree(tree: Any, tmp_path: Path) -> None:
    """Root can leave a chroot. Landlock is what holds its writes, and what is opened for it keeps to that."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("before")
    fd = os.open(outside, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(fd, True)
    try:
        path = f"/proc/{os.getpid()}/fd/{fd}"
        assert tree.run("sh", "-c", f"ls {path}/ && echo after > {path}/file") != 0
        assert tree.run("sh", "-c", f"touch {path}/new") != 0
        assert tree.run("sh", "-c", f"exec 9< {path}; echo after > /proc/self/fd/9/file") != 0
        assert tree.run("sh", "-c", f"echo after > /proc/1/root{outside}/file") != 0
    finally:
        os.close(fd)
    assert (outside / "file").read_text() == "before"
    assert os.listdir(outside) == ["file"]


def test_the_supervisor_neither_falls_nor_opens_what_landlock_keeps(tree: Any, hostile: Path, tmp_path: Path) -> None:
    (tree.rootfs / "hostile").write_bytes(hostile.read_bytes())
    (tree.rootfs / "hostile").chmod(0o755)
    outside = tmp_path / "outside"
    outside.write_text("before")
    assert tree.run("/hostile", str(os.getpid()), str(outside)) == 0, tree.output
    assert tree.output.splitlines() == [
        "readlink to nowhere: Bad address",
        "stat to nowhere: Bad address",
        "openat2 from nowhere: Bad address",
        "openat2 from an edge: Bad address",
        "openat2 with odd flags: Invalid argument",
        "open with odd flags: Success",
        "path only: Success",
        "supervisor's memory: Permission denied",
        "supervisor's memory, to read: Permission denied",
        "builda's memory: Permission denied",
        "builda's environment: Permission denied",
        "builda's root: Permission denied",
        "slashes: Permission denied",
        "dots: Permission denied",
        "kernel: Permission denied",
        "own memory: b",
        "escaped: Permission denied",
        "can read: 1",
        "own descriptor: Permission denied",
        "cut: Permission denied",
    ]
    assert outside.read_text() == "before"


def test_a_process_reopens_what_it_may_write(tree: Any) -> None:
    """What it has open for writing already, also outside, and its own files by any descriptor."""
    assert tree.shell("echo one > /dev/stdout; exec 5< /etc/group; echo two > /proc/self/fd/5; cat /etc/group") == (
        "one\ntwo\n"
    )


def test_renames_between_directories_work(tree: Any) -> None:
    assert tree.shell("mkdir /a /b; echo x > /a/f; mv /a/f /b/g; ln /b/g /a/h; cat /a/h") == "x\n"


@pytest.mark.parametrize("change", [{"network": "none"}, {"network": "ns:/x"}, {"cgroup_parent": "/x"}])
def test_what_takes_a_namespace_is_refused(tree: Any, change: dict[str, Any]) -> None:
    with pytest.raises(IsolationUnavailable):
        tree.run("true", **change)


def test_what_would_be_mounted_is_refused(tree: Any) -> None:
    with pytest.raises(IsolationUnavailable, match="nothing can be mounted here"):
        tree.run("true", mounts=(Mount("bind", "/etc", "/x"),))


def test_a_terminal_is_the_machines(tree: Any) -> None:
    assert tree.run("tty", terminal=True, capture=True) in (0, 1)
    assert tree.run("sh", "-c", "test -t 0", terminal=True, capture=True) == 0
