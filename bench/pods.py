"""The tables of docs/kubernetes.md: what builda does in each kind of pod, by building in it.

    python -m bench.pods [PROFILE ...]
    python -m bench.pods --beside [PROFILE ...]

Each pod builds a Containerfile with RUN (useradd, chown, a cache mount, a secret), one without, and runs a bash script,
on a volume, from an archive of Debian's minimal base. A cell is the seconds that the build took in the pod, pulling
included, with `=` behind it when the image has the digest that root's build on this machine gave, `refused` when builda
said so before any work, or `fails` when a command failed.

With `--beside` a row is the whole life of a pod, its start included, with builda and with Debian's buildah (isolation
chroot, driver overlay): the base is pulled from a registry on loopback, a Containerfile with COPY and three RUN is
built, and the image goes to an OCI archive. buildah builds without a cache of layers.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.base_images import debian_tar
from tests.support.pods import PODSIM, in_pod
from tests.support.registry import registry

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
WITH_RUN = """FROM localhost/debian:debian
COPY --chown=1000:0 hello /srv/
RUN SOURCE_DATE_EPOCH=0 useradd -m x && chown x:x /srv/hello && chmod 4755 /srv/hello
RUN --mount=type=cache,target=/c --mount=type=secret,id=s touch /c/x && cat /run/secrets/s > /dev/null
CMD ["bash"]
"""
BESIDE = """FROM BASE
COPY --chown=1000:0 hello /srv/
RUN SOURCE_DATE_EPOCH=0 useradd -m x && chown x:x /srv/hello && id x
RUN --mount=type=cache,target=/c touch /c/x
RUN apt-get --version
ENV A=b
CMD ["bash"]
"""
BUILDS = {
    "builda": "builda bud -q --tls-verify=false -f /given/Beside -t built /given >&2; "
    "builda push -q built oci-archive:/vol/out.tar >&2",
    "buildah": 'b() { buildah --root /vol/s --runroot /vol/r --storage-driver overlay "$@"; }; '
    "b bud -q --isolation chroot --tls-verify=false -f /given/Beside -t built /given >&2; "
    "b push -q built oci-archive:/vol/out.tar:x >&2",
}
WORKING = ("privileged-root", "root-default-unconfined", "rootless-setuid", "userns-pod", "userns-pod-admin")
WITHOUT_RUN = """FROM localhost/debian:debian
COPY --chown=1000:0 hello /srv/
WORKDIR /srv/work
CMD ["bash"]
"""
PULL = "builda pull -q oci-archive:/given/debian.tar:debian >&2"
DIGEST = "builda inspect --type image --format '{{.FromImageDigest}}' built; echo"
WORK: Mapping[str, tuple[str, ...]] = {
    "mode": (r"""builda info | sed -n 's/.*"mode": "\([a-z]*\)".*/\1/p'""",),
    "bud with RUN": (PULL, "builda bud -q -f /given/With --secret id=s,src=/given/hello -t built /given >&2", DIGEST),
    "bud without RUN": (PULL, "builda bud -q -f /given/Without -t built /given >&2", DIGEST),
    "script": (
        PULL,
        "c=$(builda from localhost/debian:debian)",
        "builda run --env SOURCE_DATE_EPOCH=0 $c useradd y >&2",
        "builda copy -q --chown y:y $c /given/hello /srv/hello >&2",
        "builda commit -q --rm $c built >&2",
        DIGEST,
    ),
}


def main() -> None:
    """Print the table, a row at a time."""
    if sys.argv[1:2] == ["--beside"]:
        _beside(tuple(sys.argv[2:]) or WORKING)
        return
    listed = subprocess.run([str(PODSIM), "--list"], capture_output=True, text=True, check=True).stdout
    profiles = sys.argv[1:] or [line.split()[0] for line in listed.splitlines() if line.strip()]
    with tempfile.TemporaryDirectory(prefix="pods-") as directory:
        given = _given(Path(directory))
        root = {name: _done("privileged-root", script, given)[1] for name, script in WORK.items()}
        print("| pod | " + " | ".join(WORK) + " |")
        print("|---" * (len(WORK) + 1) + "|")
        for profile in profiles:
            cells = [_cell(name, profile, given, root) for name in WORK]
            print(f"| {profile} | " + " | ".join(cells) + " |", flush=True)


def _beside(profiles: tuple[str, ...]) -> None:
    """Print the seconds of whole pods, the better of two runs each."""
    with tempfile.TemporaryDirectory(prefix="pods-") as directory, registry() as server:
        base = server.name("debian:base")
        given = _given(Path(directory), base)
        print("| pod | " + " | ".join(f"{name} s" for name in BUILDS) + " |")
        print("|---" * (len(BUILDS) + 1) + "|")
        for profile in profiles:
            cells = [_whole(profile, script, given) for script in BUILDS.values()]
            print(f"| {profile} | " + " | ".join(cells) + " |", flush=True)


def _whole(profile: str, script: str, given: Path) -> str:
    times = []
    for _ in range(2):
        start = time.perf_counter()
        done = in_pod(profile, f"{script}; test -s /vol/out.tar", given=given)
        times.append(time.perf_counter() - start)
        if done.returncode != 0:
            return "fails"
    return f"{min(times):.1f}"


def _given(directory: Path, pushed: str | None = None) -> Path:
    directory.chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="store-") as store:

        def builda(*arguments: str) -> str:
            command = [
                sys.executable,
                "-m",
                "builda",
                "--root",
                f"{store}/root",
                "--runroot",
                f"{store}/run",
                *arguments,
            ]
            return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

        container = builda("from", "scratch")
        builda("add", "--quiet", container, str(debian_tar()), "/")
        builda("config", "--env", PATH, container)
        builda("commit", "--quiet", container, f"oci-archive:{directory}/debian.tar:debian")
        if pushed is not None:
            builda("commit", "--quiet", "--tls-verify=false", container, f"docker://{pushed}")
    (directory / "Beside").write_text(BESIDE.replace("BASE", pushed or ""))
    (directory / "With").write_text(WITH_RUN)
    (directory / "Without").write_text(WITHOUT_RUN)
    (directory / "hello").write_text("hello\n")
    return directory


def _done(profile: str, script: tuple[str, ...], given: Path) -> tuple[float, str, str]:
    """Seconds in the pod, its standard output, and the last line of its standard error ("" when all went well)."""
    timed = f"start=$(date +%s%N); {'; '.join(script)}; echo TOOK $(( ($(date +%s%N) - start) / 1000000 )) >&2"
    done = in_pod(profile, timed, given=given, environ=EPOCH)
    took = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("TOOK ")]
    if done.returncode == 0:
        return took[-1] / 1000, done.stdout.strip(), ""
    return 0.0, "", next((line for line in done.stderr.splitlines() if line.startswith("Error: ")), "command failed")


def _cell(name: str, profile: str, given: Path, root: Mapping[str, str]) -> str:
    seconds, output, error = _done(profile, WORK[name], given)
    if error:
        return "fails" if "command failed" in error else "refused"
    return output if name == "mode" else f"{seconds:.1f} s{' =' * (output == root[name])}"


if __name__ == "__main__":
    main()
