"""What commands cost in the modes `single` and `traced`, beside root: docs/rootless.md has the figures.

    python -m bench.commands [--rounds N] [--calls]

Each round runs the same commands in a simulated pod of each kind, in turn. The pod's volume lies in PODSIM_STATE, or
else in memory: on ext4, creates are slow for minutes after the volume of the pod before was deleted. `native` is root
in a copied tree by chroot(2), `direct` root's `builda run`, whose tree is an overlay with namespaces. They install
packages that the base image has downloaded already, and a program makes 20,000 calls of each kind. Times are those that
the commands see. The smallest of all rounds is printed, since other work on the machine only ever adds to one.
`--calls` leaves the packages out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.base_images import debian_tar
from tests.support.pods import in_pod

PACKAGES = "gcc make python3-minimal"
QUIETLY = "> /dev/null 2>&1 < /dev/null"
INSTALL = f"DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends {PACKAGES} {QUIETLY}"
KEEP = "-o APT::Keep-Downloaded-Packages=true"
PODS = {"native": "privileged-root", "direct": "privileged-root", "single": "rootless-nosetuid", "traced": "restricted"}
CALLS = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static struct stat s;
static void get(int i) { syscall(SYS_getppid); }
static void look(int i) { stat("/etc/passwd", &s); }
static void look_at_none(int i) { stat("/etc/none", &s); }
static void opened(int i) { close(open("/etc/passwd", O_RDONLY)); }
static void made(int i) { close(open("/made", O_CREAT | O_WRONLY | O_TRUNC, 0644)); }
static void read_all(int i) {
    static char data[4096];
    int fd = open("/etc/passwd", O_RDONLY);
    read(fd, data, 4096), close(fd);
}
static void given(int i) { chown("/file", i % 7, i % 5); }
static void id(int i) { getuid(); }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static void timed(const char *name, void (*call)(int), int count) {
    double start = now();
    for (int i = 0; i < count; i++) call(i);
    printf("TIME %s=%.4f\n", name, now() - start), fflush(stdout);
}
int main(int argc, char **argv) {
    int count = atoi(argv[1]);
    close(open("/file", O_CREAT | O_WRONLY, 0644));
    timed("getppid", get, count), timed("stat", look, count), timed("stat ENOENT", look_at_none, count);
    timed("open", opened, count), timed("open and read", read_all, count), timed("open O_CREAT", made, count);
    timed("getuid", id, count), timed("chown", given, count), timed("stat afterwards", look, count);
    return 0;
}
"""
NATIVE = """
c=$(builda from localhost/base:base); cp -a "$(builda mount $c)" /vol/tree; builda rm $c >&2
mount -t proc proc /vol/tree/proc; mount --rbind /dev /vol/tree/dev
run() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot /vol/tree "$@"; }
"""
BUILDA = 'c=$(builda from localhost/base:base); run() { builda run $c -- "$@"; }\n'
WORK = """
run /calls 20000
case $1 in packages)
    run bash -c 'TIMEFORMAT="TIME packages=%R"; time {install}' 2>&1
esac
"""


def main() -> None:
    """Print a table: the seconds of each kind of work, by mode."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", action="store_true")
    asked = parser.parse_args()
    os.environ.setdefault("PODSIM_STATE", "/dev/shm")
    found: dict[str, dict[str, float]] = {name: {} for name in PODS}
    with tempfile.TemporaryDirectory(prefix="commands-") as directory:
        given = _given(Path(directory))
        for _ in range(asked.rounds):
            for mode in PODS:
                for work, seconds in _seconds(mode, given, with_packages=not asked.calls).items():
                    found[mode][work] = min(seconds, found[mode].get(work, seconds))
    print("| seconds | " + " | ".join(PODS) + " |")
    print("|---" * (len(PODS) + 1) + "|")
    for work in found["native"]:
        print(f"| {work} | " + " | ".join(f"{found[mode][work]:.3f}" for mode in PODS) + " |")


def _seconds(mode: str, given: Path, *, with_packages: bool) -> dict[str, float]:
    """The seconds of each kind of work, in one pod."""
    begin = "builda pull -q oci-archive:/given/base.tar:base >&2\n" + (NATIVE if mode == "native" else BUILDA)
    script = f"{begin}set -- {'packages' if with_packages else 'calls'}\n{WORK.replace('{install}', INSTALL)}"
    done = in_pod(PODS[mode], script, given=given, patience=600)
    if done.returncode:
        raise RuntimeError(f"{mode}: {done.stderr[-2000:]}")
    rows = (line[5:].rpartition("=") for line in done.stdout.splitlines() if line.startswith("TIME "))
    return {name: float(seconds) for name, _, seconds in rows}


def _given(directory: Path) -> Path:
    """A directory with the base image: Debian with the packages in apt's cache, and a program that makes calls."""
    directory.chmod(0o755)
    (directory / "calls.c").write_text(CALLS)
    subprocess.run(["cc", "-static", "-O1", "-o", directory / "calls", directory / "calls.c"], check=True)
    with tempfile.TemporaryDirectory(prefix="store-") as store:

        def builda(*arguments: str) -> str:
            place = ["--root", f"{store}/root", "--runroot", f"{store}/run"]
            command = [sys.executable, "-m", "builda", *place, *arguments]
            return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

        container = builda("from", "scratch")
        builda("add", "--quiet", container, str(debian_tar()), "/")
        builda("copy", "--quiet", container, str(directory / "calls"), "/calls")
        download = INSTALL.replace("install", f"install -d {KEEP}", 1)
        builda("run", container, "--", "sh", "-ec", f"apt-get -qq update; {download}")
        builda("commit", "--quiet", container, f"oci-archive:{directory}/base.tar:base")
    return directory


if __name__ == "__main__":
    main()
