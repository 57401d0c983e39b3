"""A busybox root file system, and a way to run commands in it through any isolation."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builda.events import CommandOutput, Event
from builda.isolation import begun, isolation_for
from builda.isolation.spec import MASKED_PATHS, READONLY_PATHS, Process, Sandbox, User
from builda.linux import caps
from builda.linux import syscalls as sys_
from builda.linux.mount import Mount, attach, detach
from tests.support.pathcalls import NO_NOTIFICATIONS, child_without

BUSYBOX = shutil.which("busybox")


class Box:
    """Runs commands in `rootfs`; each run has the defaults of `process` and `sandbox` and what is said over them."""

    def __init__(self, rootfs: Path, scratch: Path) -> None:
        self.rootfs = rootfs
        self.scratch = scratch
        self.stubs = scratch / "stubs"
        self.events: list[Event] = []
        self.isolation: Any = None
        self.is_traced = False
        self.process = Process(
            args=(),
            env=(("PATH", "/bin"),),
            cwd="/",
            user=User(uid=0, gid=0),
            capabilities=caps.DEFAULT,
            stdin=b"",
            capture=True,
        )
        self.sandbox = Sandbox(
            rootfs=(Mount("bind", str(rootfs), "/"),),
            files={},
            namespaces={},
            network="none",
            hostname="box",
            seccomp=None,
            masked_paths=MASKED_PATHS,
            readonly_paths=READONLY_PATHS,
            scratch="",
            mountpoint_record=str(self.stubs),
        )

    def run(self, *args: str, **changes: Any) -> int:
        """The status of a command; its output is in `output` then."""
        self.events.clear()
        scratch = self.scratch / os.urandom(4).hex()
        scratch.mkdir()
        ours = {key: changes.pop(key) for key in tuple(changes) if key in Process.__dataclass_fields__}
        process = replace(self.process, args=args, **ours)
        sandbox = replace(self.sandbox, scratch=str(scratch), **changes)
        with read_only("/dev", "/proc") if self.is_traced else nullcontext():
            return int(self.isolation.run(process, sandbox, self.events.append))

    def trace(self) -> None:
        """Run commands in mode `traced` from now on. /dev and /proc are this machine's, read-only for them."""
        self.isolation = isolation_for(None, state=self.scratch, can_mount=False, can_chroot=False)
        self.sandbox = replace(self.sandbox, network="host")
        self.is_traced = True

    def shell(self, script: str, **changes: Any) -> str:
        """What a script that must succeed printed."""
        status = self.run("sh", "-ec", script, **changes)
        assert status == 0, (status, self.output)
        return self.output

    @property
    def output(self) -> str:
        return b"".join(event.data for event in self.events if isinstance(event, CommandOutput)).decode()


@contextmanager
def read_only(*paths: str) -> Iterator[None]:
    """Mounts through which this thread and what it starts can change nothing, be it root.

    They are in a mount namespace of their own: other tests that run at the same time write to /proc.
    """
    before, directory = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), os.getcwd()
    sys_.unshare(sys_.CLONE_NEWNS)
    try:
        for path in paths:
            sys_.mount_setattr(sys_.AT_FDCWD, path, 0, attr_set=sys_.MOUNT_ATTR_RDONLY)
        yield
    finally:
        sys_.setns(before, sys_.CLONE_NEWNS)
        os.chdir(directory)
        os.close(before)


def make_rootfs(path: Path) -> None:
    for name in "bin etc proc sys dev tmp root".split():
        (path / name).mkdir(parents=True)
    assert BUSYBOX is not None
    shutil.copy(BUSYBOX, path / "bin/busybox")
    for applet in subprocess.check_output([BUSYBOX, "--list"], text=True).split():
        if applet != "busybox":
            (path / "bin" / applet).symlink_to("busybox")
    (path / "tmp").chmod(0o1777)
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\nbob:x:1000:\nwheel:x:10:root,bob\n")


@contextmanager
def boxes(scratch: Path) -> Iterator[Callable[..., Box]]:
    """Makes boxes of one root file system, which is a tmpfs below `scratch`."""
    place = scratch / "rootfs"
    place.mkdir()
    attach((Mount("tmpfs", "tmpfs", "/", ("mode=755",)),), place)
    make_rootfs(place)

    def make(isolation: str, **options: Any) -> Box:
        box = Box(place, scratch)
        box.isolation = isolation_for(isolation, state=scratch / "state", **options)
        return box

    try:
        yield make
    finally:
        detach(place)


@pytest.fixture
def new_box(tmp_path: Path) -> Iterator[Callable[..., Box]]:
    if os.geteuid() != 0:
        pytest.skip("namespaces and mounts need root")
    if BUSYBOX is None:
        pytest.skip("busybox-static is not installed")
    with boxes(tmp_path) as make:
        yield make


@pytest.fixture
def box(new_box: Callable[[str], Box]) -> Box:
    return new_box("native")


@pytest.fixture(params=["notifications", "stops"])
def answered(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How calls are answered in mode `traced`: as the kernel hands them over, or where threads stop for the tracer."""
    if request.param == "stops":
        monkeypatch.setattr(begun, "_CHILD", child_without(NO_NOTIFICATIONS, tmp_path))
