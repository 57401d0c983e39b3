"""Base images, made here because no image registry can be counted on: busybox, and Debian by mmdebstrap.

Root file systems are kept in `.work/` as tar files, so that only the first run on a machine pays for them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

WORK = Path(__file__).parents[2] / ".work"


def busybox_tree(directory: Path) -> Path:
    """A root file system with busybox as everything; the directory."""
    (directory / "bin").mkdir(parents=True)
    shutil.copy2(_required("busybox"), directory / "bin/busybox")
    for applet in subprocess.check_output([directory / "bin/busybox", "--list"], text=True).split():
        if applet != "busybox":
            (directory / "bin" / applet).symlink_to("busybox")
    for name, mode in (("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755)):
        (directory / name).mkdir()
        (directory / name).chmod(mode)
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (directory / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    return directory


def debian_tar() -> Path:
    """A tar of a minimal Debian bookworm that can run apt-get with this machine's own package sources."""
    path = WORK / "debian-bookworm.tar"
    if not path.exists():
        WORK.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        command = [_required("mmdebstrap"), "--variant=minbase", "--format=tar", "--include=ca-certificates"]
        for extra in _download_settings():
            command.append(f"--customize-hook=copy-in {extra} /etc/apt/apt.conf.d")
        sources = next((p for p in map(Path, _SOURCES) if p.exists()), None)
        arguments = ["bookworm", str(partial)] + ([str(sources)] if sources else [])
        subprocess.run([*command, *arguments], check=True, capture_output=True)
        partial.rename(path)
    return path


_SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")


def _download_settings() -> list[Path]:
    """This machine's settings of how packages are fetched (proxies, mirrors that lag); the image needs them too."""
    found = sorted(Path("/etc/apt/apt.conf.d").iterdir())
    return [path for path in found if "Acquire::" in path.read_text(errors="replace") and "docker" not in path.name]


def _required(command: str) -> str:
    found = shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        raise FileNotFoundError(f"{command} is not installed: run tools/install test")
    return found
