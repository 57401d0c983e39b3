"""Run a program of tests/pathcalls in mode `single`: PLACE PROGRAM ARGUMENT…, as root of one id."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from builda.isolation import isolation_for
from builda.linux.mount import Mount, attach
from tests.unit.isolation.conftest import Box, make_rootfs

place, program = Path(sys.argv[1]), Path(sys.argv[2])
rootfs = place / "single"
rootfs.mkdir(exist_ok=True)
attach((Mount("tmpfs", "tmpfs", "/", ("mode=755",)),), rootfs)
make_rootfs(rootfs)
for path in (*rootfs.glob("bin/*"), *rootfs.glob("etc/*")):
    path.unlink()
(rootfs / "bin").rmdir()
(rootfs / "tmp").chmod(0o755)
shutil.copy(program, rootfs / "root")
box = Box(rootfs, place)
box.isolation = isolation_for("native", state=place / "state")
status = box.run(f"/root/{program.name}", *sys.argv[3:], emulates_ids=True)
sys.stdout.write(box.output)
sys.exit(status)
