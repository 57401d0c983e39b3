"""Terminals and attributes in modes `chroot` and `traced`, where a supervisor opens /dev and /proc for commands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builda.isolation import isolation_for

pytestmark = pytest.mark.root
PROBE = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
static int opened(const char *path) {
    int fd = open(path, O_RDWR | O_NOCTTY);
    return fd < 0 ? errno : (close(fd), 0);
}
int main(int count, char **words) {
    struct stat found;
    char name[64], text[4] = "";
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY);
    if (master < 0 || unlockpt(master) || ptsname_r(master, name, sizeof name)) return 1;
    printf("device %d\n", stat("/dev/ptmx", &found) == 0 && S_ISCHR(found.st_mode));
    printf("own terminal: %s\n", strerror(opened(name)));
    int status, slave = open(name, O_RDWR | O_NOCTTY);
    if (fork() == 0) {  /* as expect(1): the parent alone has the master */
        close(master);
        _exit(opened(name));
    }
    wait(&status);
    printf("of a child: %s\n", strerror(WEXITSTATUS(status)));
    write(slave, "a\n", 2);
    read(master, text, 3);
    printf("read %.1s\n", text);
    close(slave);
    close(master);
    printf("after its end: %d\n", opened(name) != 0);
    printf("of others: %s\n", strerror(opened(words[1])));
    printf("attributes: %s\n", llistxattr("/proc/self/exe", 0, 0) >= 0 ? "none" : strerror(errno));
    printf("attribute: %s\n", getxattr("/proc/self/fd", "user.x", text, 4) < 0 ? strerror(errno) : "?");
    printf("of nothing: %s\n", getxattr("/proc/none", "user.x", text, 4) < 0 ? strerror(errno) : "?");
    return 0;
}
"""


@pytest.mark.parametrize("mode", ["chroot", "traced"])
def test_a_command_has_its_own_terminals_and_no_others(
    mode: str, new_box: Callable[[str], Any], tmp_path: Path
) -> None:
    box = new_box("native")
    if mode == "traced":
        box.trace()
    else:
        box.isolation = isolation_for(None, state=box.scratch, can_mount=False)
        box.sandbox = box.sandbox.__class__(
            **{name: getattr(box.sandbox, name) for name in box.sandbox.__dataclass_fields__} | {"network": "host"}
        )
    for name in ("dev/pts", "proc"):
        (box.rootfs / name).mkdir(parents=True, exist_ok=True)
    if mode == "traced":
        (box.rootfs / "dev/ptmx").touch()
    (tmp_path / "probe.c").write_text("#define _GNU_SOURCE\n" + PROBE)
    subprocess.run(["gcc", "-static", "-w", "-o", box.rootfs / "probe", tmp_path / "probe.c"], check=True)
    master, slave = os.openpty()
    try:
        assert box.run("/probe", os.ttyname(slave)) == 0, box.output
    finally:
        os.close(master)
        os.close(slave)
    no_attributes = os.strerror(95)
    assert box.output.splitlines() == [
        "device 1",
        "own terminal: Success",
        "of a child: Success",
        "read a",
        "after its end: 1",
        "of others: Permission denied",
        f"attributes: {'none' if mode == 'traced' else no_attributes}",
        f"attribute: {no_attributes}",
        "of nothing: No such file or directory",
    ]
