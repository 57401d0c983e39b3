"""One Containerfile and one script in each kind of Kubernetes pod: the image that root builds, or a clear refusal."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from builda.linux.fuse import lacking
from tests.conftest import Builda
from tests.support import needs
from tests.support.pods import PODSIM, VOLUME, in_pod, sampled
from tests.support.registry import PASSWORD, USER, registry
from tests.support.rootless import interpreter

pytestmark = [
    pytest.mark.root,
    needs.program("crun", "runc"),
]
TMP = {"TMP": VOLUME, "SOURCE_DATE_EPOCH": "0"}
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
MODES = {
    "privileged-root": "direct",
    "root-default-unconfined": "userns",
    "rootless-setuid": "subid",
    "rootless-nosetuid": "single",
    "userns-pod": "userns",
    "userns-pod-unmasked": "userns",
    "userns-pod-admin": "direct",
    "userns-pod-admin-unmasked": "direct",
    "userns-rootless": "subid",
    "userns-user": "single",
    "userns-image-subids": "single",
}
SAMPLE = ("root-default-unconfined", "rootless-setuid", "rootless-nosetuid", "userns-pod", "userns-pod-admin")
"""One pod of each mode, and one whose /proc is hidden; `make test-long` builds in the others too."""
EACH_MODE = ("userns-pod-admin", "root-default-unconfined", "rootless-setuid", "rootless-nosetuid", "root-default")
WITHOUT_MOUNTS = {
    "root-default": "chroot",
    "userns-pod-seccomp": "chroot",
    "restricted": "traced",
    "restricted-ro": "traced",
    "root-nocaps": "traced",
    "root-nocaps-seccomp": "traced",
    "openshift": "traced",
    "userns-user-seccomp": "traced",
}
SAID_ONCE = {"chroot": "nothing can be mounted here", "traced": "the kernel gives commands no root directory here"}
FRESH_PROC = {name for name in MODES if "unmasked" in name or "admin" in name} | {
    "privileged-root",
    "userns-rootless",
    "userns-image-subids",
}
CONTAINERFILE = """\
FROM localhost/debian:debian
COPY --chown=1000:0 hello /srv/
SHELL ["bash", "-c"]
RUN SOURCE_DATE_EPOCH=0 useradd -m x && su x -c 'touch ~/mine && test $(id -u) = 1000'
RUN chown x:x /srv/hello && chmod 4755 /srv/hello
COPY *.deb /tmp/
RUN dpkg -i /tmp/alone.deb /tmp/owned.deb && owned && rm /tmp/*.deb /var/log/dpkg.log
RUN --mount=type=cache,target=/c --mount=type=secret,id=s touch /c/x && grep -q word /run/secrets/s
RUN rm -rf /var/log && mkdir /var/log && chown 33:42 /var/log && cat <(echo substituted) > /dev/null
CMD ["bash"]
"""
BUILD = """
builda info | grep '"mode"' >&2
builda pull -q oci-archive:/given/debian.tar:debian >&2
builda bud -q --secret id=s,src=/given/secret -t built /given >&2
builda inspect --type image --format '{{.FromImageDigest}}' built && echo
c=$(builda from built)
builda run $c bash -c 'useradd y; ls -d /proc/[0-9]* | wc -l; : > /dev/null; ls /dev/pts/ptmx /dev/shm > /dev/null'
builda commit -q --rm $c again >&2
builda prune -af >&2
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, debian: Path) -> Path:
    """What pods are given: a base image and a build context with a secret."""
    path = tmp_path_factory.mktemp("given")
    path.chmod(0o755)
    shutil.copy(debian, path)
    (path / "Containerfile").write_text(CONTAINERFILE)
    (path / "hello").write_text("hello\n")
    os.utime(path / "hello", (1600000000, 1600000000))
    (path / "secret").write_text("word\n")
    package(path, "alone")
    package(path, "owned", "#!/bin/sh\nset -e\nmkdir -p /var/lib/owned && chown games:games /var/lib/owned\n")
    return path


def package(path: Path, name: str, configure: str | None = None) -> None:
    """A Debian package with a program that is called like it, and what is done to configure it."""
    tree = path / f"{name}-tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/bin").mkdir(parents=True)
    fields = {"Package": name, "Version": "1", "Architecture": "all", "Maintainer": "x <x@example.org>"}
    text = "".join(f"{key}: {value}\n" for key, value in fields.items())
    (tree / "DEBIAN/control").write_text(f"{text}Description: a program\n")
    if configure is not None:
        (tree / "DEBIAN/postinst").write_text(configure)
        (tree / "DEBIAN/postinst").chmod(0o755)
    (tree / "usr/bin" / name).write_text(f"#!/bin/sh\necho {name}\n")
    (tree / "usr/bin" / name).chmod(0o755)
    made = path / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, made], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)


@pytest.fixture(scope="module")
def by_root(tmp_path_factory: pytest.TempPathFactory, given: Path) -> str:
    """The digest of the image as root builds it."""
    builda = Builda(tmp_path_factory.mktemp("root") / "store", tmp_path_factory.mktemp("run") / "run")
    builda("pull", "-q", f"oci-archive:{given}/debian.tar:debian")
    builda("bud", "-q", "--secret", f"id=s,src={given}/secret", "-t", "built", given, **EPOCH)
    found: str = json.loads(builda("inspect", "--type", "image", "built"))["FromImageDigest"]
    return found


@pytest.mark.parametrize("profile", sampled(MODES, SAMPLE))
def test_a_pod_builds_what_root_builds(profile: str, given: Path, by_root: str) -> None:
    done = in_pod(profile, BUILD, given=given, environ=EPOCH)
    assert done.returncode == 0, done.stderr
    assert f'"mode": "{MODES[profile]}"' in done.stderr
    digest, processes = done.stdout.split()
    assert digest == by_root
    assert (int(processes) <= 4) is (profile in FRESH_PROC), processes


LISTING = """
c=$(builda from built)
builda run $c find / -xdev -regextype egrep -regex '/(proc|sys|dev|run|etc/(hosts|hostname|resolv.conf)).*' -prune \\
  -o -type d -printf '%p %M %U:%G\\n' -o -printf '%p %M %U:%G %s %n %l\\n' | sort
"""
FILES_OF_BUILT = f"""
builda pull -q oci-archive:/given/debian.tar:debian >&2
builda bud -q --secret id=s,src=/given/secret -t built /given >&2
{LISTING}"""


@pytest.fixture(scope="module")
def files_by_root(given: Path) -> list[str]:
    """The files of the image as root in a privileged pod sees them."""
    done = in_pod("privileged-root", FILES_OF_BUILT, given=given, environ=EPOCH)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("profile", sampled(WITHOUT_MOUNTS, ["root-default", "openshift"]))
def test_a_pod_without_mounts_builds_what_root_builds(
    profile: str, given: Path, by_root: str, files_by_root: list[str]
) -> None:
    script = BUILD.replace("ls /dev/pts/ptmx /dev/shm", "ls /dev/shm")
    script = script.replace("builda prune", f"{LISTING}builda prune")
    done = in_pod(profile, script, given=given, environ=EPOCH)
    assert done.returncode == 0, done.stderr
    mode = WITHOUT_MOUNTS[profile]
    assert f'"mode": "{mode}"' in done.stderr
    assert done.stderr.count(SAID_ONCE[mode]) == 1
    digest, _processes, *files = done.stdout.splitlines()
    assert digest == by_root
    assert files == files_by_root
    assert len(files) > 2500


ONE_ID = """\
FROM localhost/debian:debian AS first
COPY --chown=1000:0 hello /srv/
COPY --chown=games:games links /srv/links
ADD --chown=7:8 tree.tar /srv/tree/
WORKDIR /srv/app
SHELL ["bash", "-c"]
COPY alone.deb /tmp/
RUN dpkg -i /tmp/alone.deb && alone && rm /tmp/alone.deb /var/log/dpkg.log
RUN echo x >> /etc/motd && chmod 4755 /srv/hello && rm -rf /var/log && mkdir /var/log && cat <(echo y) > made
RUN --mount=type=cache,target=/c --mount=type=secret,id=s touch /c/x && grep -q word /run/secrets/s
FROM localhost/debian:debian
COPY --from=first /srv /srv
COPY --from=first /etc /all/etc/
COPY --from=first /usr/bin /all/bin/
RUN mv /srv/links /srv/moved && touch /srv/tree/more
"""
IN_ONE_ID = """
builda info | grep '"mode"' >&2
builda pull -q oci-archive:/given/debian.tar:debian >&2
for how in "" --squash; do
  builda bud -q $how --secret id=s,src=/given/secret -t built -f /given/OneId /given >&2
  builda inspect --type image --format '{{.FromImageDigest}}' built && echo
done
"""


@pytest.fixture(scope="module")
def given_owners(given: Path) -> Path:
    """A context with links and fifos, which can have no attributes of users, and an archive of several owners."""
    (given / "links").mkdir()
    for number in range(40):
        (given / f"links/{number}").symlink_to("../hello")
    os.mkfifo(given / "links/fifo")
    os.link(given / "hello", given / "links/hard")
    (given / "OneId").write_text(ONE_ID)
    with tarfile.open(given / "tree.tar", "w") as archive:
        for name, kind, uid in (("d", tarfile.DIRTYPE, 3), ("d/l", tarfile.SYMTYPE, 4), ("d/c", tarfile.CHRTYPE, 5)):
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.gid, member.mode, member.linkname = kind, uid, uid, 0o755, "there"
            archive.addfile(member)
    return given


def test_a_pod_with_one_id_keeps_owners_aside_and_builds_what_root_builds(given_owners: Path) -> None:
    one, root = (
        in_pod(profile, IN_ONE_ID, given=given_owners, environ=EPOCH)
        for profile in ("rootless-nosetuid", "privileged-root")
    )
    assert one.returncode == root.returncode == 0, one.stderr + root.stderr
    assert '"mode": "single"' in one.stderr
    assert len(one.stdout.split()) == 2
    assert one.stdout == root.stdout


def test_what_one_id_cannot_do_is_named(given: Path) -> None:
    script = """
    builda pull -q oci-archive:/given/debian.tar:debian >&2
    c=$(builda from localhost/debian:debian)
    builda run --isolation oci --user games $c id
    """
    done = in_pod("rootless-nosetuid", script, given=given)
    assert done.returncode == 125
    assert "cannot run as 5:60: uid 5 is not in this user namespace, which has 0-0" in done.stderr
    assert "/etc/subuid" in done.stderr


def without_call(path: Path, name: str) -> str:
    """The path of RuntimeDefault's seccomp profile without one call."""
    allowed = json.loads((PODSIM.parent / "seccomp-runtimedefault.json").read_text())
    for row in allowed["syscalls"]:
        row["names"] = [each for each in row["names"] if each != name]
    file = path / f"without-{name}.json"
    file.write_text(json.dumps(allowed))
    return str(file)


def test_a_pod_without_landlock_runs_commands_and_says_what_they_reach(given: Path, tmp_path: Path) -> None:
    script = """
    builda doctor
    builda pull -q oci-archive:/given/debian.tar:debian
    builda run $(builda from localhost/debian:debian) bash -c 'echo x > /new; cat /new'
    """
    done = in_pod("restricted", script, "--seccomp", without_call(tmp_path, "landlock_create_ruleset"), given=given)
    assert done.returncode == 0, done.stderr
    assert "the kernel has no Landlock, or one before Linux 5.19" in done.stdout
    assert done.stdout.splitlines()[-1] == "x"


@pytest.fixture(scope="module")
def untraced(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A seccomp profile with which nothing can be traced."""
    return without_call(tmp_path_factory.mktemp("untraced"), "ptrace")


@pytest.mark.parametrize("name", ["ptrace", "seccomp", "process_vm_readv"])
def test_a_pod_that_allows_too_little_is_told_what_it_lacks(name: str, given: Path, tmp_path: Path) -> None:
    script = """
    builda info | grep '"mode"'
    printf 'FROM scratch\\nCOPY hello /\\n' | builda bud -q -t built -f - /given > /dev/null
    builda doctor || echo doctor $?
    c=$(builda from scratch); builda run $c true
    """
    done = in_pod("restricted", script, "--seccomp", without_call(tmp_path, name), given=given)
    assert '"mode": "traced"' in done.stdout, done.stderr
    assert "commands cannot be run" in done.stdout
    assert "doctor 1" in done.stdout
    assert done.returncode == 125
    assert "user namespace" in done.stderr
    assert "commands cannot be traced here: " in done.stderr
    assert "hint: seccompProfile: type: RuntimeDefault; or in a pod runAsUser: 0 " in done.stderr


@pytest.mark.parametrize(
    ("profile", "mode", "has_proc"), [("gvisor-root", "chroot", False), ("gvisor-restricted", "traced", True)]
)
def test_a_kernel_that_hands_no_calls_over_runs_commands(profile: str, mode: str, has_proc: bool, given: Path) -> None:
    script = """
    builda info | grep '"mode"'
    builda doctor
    builda pull -q oci-archive:/given/debian.tar:debian
    printf 'FROM localhost/debian:debian\nCOPY --chown=games hello /srv/\n' | builda bud -q -t built -f - /given
    printf 'FROM built\nRUN useradd x && su x -c "test $(head -c 4 /dev/urandom | wc -c) = 4" && ls /proc | wc -l\n' |
      builda bud -t ran -f - /given
    """
    done = in_pod(profile, script, given=given)
    assert done.returncode == 0, done.stderr
    assert f'"mode": "{mode}"' in done.stdout
    assert ("it has no /proc (the kernel hands no calls over: " in done.stderr) is not has_proc
    assert ("commands take several times as long" in done.stdout) is has_proc


def test_a_kernel_that_hands_no_descriptors_over_is_named(given: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    refused = {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22}
    refused["args"] = [{"index": 1, "value": 0x40182103, "op": "SCMP_CMP_EQ"}]  # SECCOMP_IOCTL_NOTIF_ADDFD
    unsharing = {"names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    old.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused, unsharing]}))
    script = "builda doctor || true; c=$(builda from scratch); builda run $c true"
    done = in_pod("restricted", script, "--seccomp", str(old), given=given)
    assert done.returncode == 125
    assert "a descriptor for another process: Invalid argument" in done.stdout
    assert "a node with Linux 5.9 or newer" in done.stderr


TREES = "CHOWN DAC_OVERRIDE FOWNER SETGID SETUID SYS_CHROOT".split()


@pytest.mark.parametrize(
    ("added", "mode"), [((), "traced"), (TREES[1:], "traced"), (TREES, "chroot"), (["SETFCAP"], "single")]
)
def test_a_root_without_its_capabilities_has_a_mode_that_works(added: list[str], mode: str, given: Path) -> None:
    script = """
    builda info | grep '"mode"'
    builda pull -q oci-archive:/given/debian.tar:debian
    printf 'FROM localhost/debian:debian\\nCOPY hello /srv/\\n' | builda bud -q -t built -f - /given
    builda commit -q --rm $(builda from built) again
    builda doctor || true
    c=$(builda from built)
    builda run $c true
    """
    added_options = [word for name in added for word in ("--cap-add", name)]
    done = in_pod("root-default-unconfined", script, "--cap-drop-all", *added_options, given=given)
    assert f'"mode": "{mode}"' in done.stdout, done.stderr
    assert ("runAsUser: 1000" in done.stdout) is (mode != "single")
    assert done.returncode == 0, done.stderr


REFUSING = """
! builda bud -q --secret id=s,src=/given/secret /given >&2 || exit 9
"""
CAPABILITIES = """\
FROM localhost/capable AS first
RUN cp -a /usr/bin/capable /usr/bin/copied
FROM localhost/capable
COPY --from=first /usr/bin/copied /usr/bin/capable /here/
COPY capable /of-context
RUN cp -a /here/copied /again
"""
IN_CAPABLE = """
builda pull -q oci-archive:/given/capable.tar:capable >&2
builda tag $(builda images -q) localhost/capable
for file in Capabilities CapableWithoutRun; do
  builda bud -q -f /given/$file -t built /given >&2 || continue
  builda inspect --type image --format '{{.FromImageDigest}}' built && echo
done
"""


@pytest.fixture(scope="module")
def capable(tmp_path_factory: pytest.TempPathFactory, given: Path) -> list[str]:
    """The digests of images with files that have capabilities, as root builds them; `given` gets what they need."""
    work = tmp_path_factory.mktemp("capable")
    builda = Builda(work / "store", work / "run")
    builda("pull", "-q", f"oci-archive:{given}/debian.tar:debian")
    container = builda("from", builda("images", "-q"))
    for path in (Path(builda("mount", container)) / "usr/bin/capable", given / "capable"):
        shutil.copy("/bin/true", path)
        subprocess.run(["setcap", "cap_net_raw+ep", path], check=True)
    builda("umount", container)
    builda("commit", "-q", container, f"oci-archive:{given}/capable.tar:capable")
    (given / "Capabilities").write_text(CAPABILITIES)
    (given / "CapableWithoutRun").write_text(
        "FROM localhost/capable\nCOPY --from=localhost/capable /usr/bin/capable /here/\nCOPY capable /of-context\n"
    )
    done = in_pod("privileged-root", IN_CAPABLE, given=given, environ={**EPOCH, "BUILDA_STORAGE_DRIVER": "overlay"})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "profile",
    sampled(
        [*EACH_MODE, "userns-pod-seccomp", "restricted"],
        ["root-default-unconfined", "rootless-nosetuid", "root-default", "restricted"],
    ),
)
def test_capabilities_of_files_are_kept_in_every_pod(profile: str, given: Path, capable: list[str]) -> None:
    assert len(capable) == 2
    done = in_pod(profile, IN_CAPABLE, given=given, environ=EPOCH)
    assert done.returncode == 0, done.stderr
    # Mode traced keeps the capabilities that images and COPY bring; the layer of its RUN differs from root's.
    first = 1 if profile == "restricted" else 0
    assert done.stdout.split()[first:] == capable[first:]


WITHOUT_RUN = """
builda pull -q oci-archive:/given/debian.tar:debian >&2
REFUSING
cd /given
cat > $TMP/Containerfile << END
FROM localhost/debian:debian
WORKDIR /srv/app
COPY --chown=games hello bin/
COPY --from=localhost/debian:debian /etc /all/
COPY --from=localhost/debian:debian /usr/bin /bins/
END
builda bud -q -f $TMP/Containerfile -t built /given >&2
c=$(builda from built)
builda copy -q --chown 5:6 --chmod 4711 $c secret /etc/ >&2
builda config --cmd bash $c
builda commit -q --rm $c again >&2
for image in built again; do builda inspect --type image --format '{{.FromImageDigest}}' $image; echo; done
builda push -q again oci-archive:$TMP/pushed.tar >&2
PYTHON /app/tests/support/listed.py $TMP/pushed.tar
grep -El '"driver": "(overlay|plain|memory)"' $BUILDA_ROOT/snapshots/*/info.json >&2 || echo nothing was unpacked >&2
builda prune -af >&2
""".replace("PYTHON", interpreter()[0])


@pytest.fixture(scope="module")
def composed_by_root(tmp_path_factory: pytest.TempPathFactory, given: Path) -> list[str]:
    """The digests of the images that a script without commands makes as root in trees, and what the layers hold."""
    trees = {**TMP, "BUILDA_STORAGE_DRIVER": "overlay"}
    done = in_pod("privileged-root", WITHOUT_RUN.replace("REFUSING", ""), given=given, environ=trees)
    assert done.returncode == 0, done.stderr
    assert "nothing was unpacked" not in done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("profile", sampled([*MODES, *WITHOUT_MOUNTS], EACH_MODE))
def test_a_pod_unpacks_nothing_for_a_build_without_commands(
    profile: str, given: Path, composed_by_root: list[str]
) -> None:
    done = in_pod(profile, WITHOUT_RUN.replace("REFUSING", ""), given=given, environ=TMP)
    assert done.returncode == 0, done.stderr
    assert "nothing was unpacked" in done.stderr
    assert done.stdout.splitlines() == composed_by_root


def test_a_pod_that_runs_nothing_builds_without_commands_what_root_builds(
    given: Path, composed_by_root: list[str], untraced: str
) -> None:
    script = WITHOUT_RUN.replace("REFUSING", REFUSING)
    done = in_pod("restricted", script, "--seccomp", untraced, given=given, environ=TMP)
    assert done.returncode == 0, done.stderr
    assert "/given/Containerfile:4: no command can be run here: " in done.stderr
    assert "commands cannot be traced here" in done.stderr
    assert done.stdout.splitlines() == composed_by_root


@pytest.fixture
def without_attributes(tmp_path: Path) -> Iterator[str]:
    """A volume whose file system keeps no attributes of users, as tmpfs before Linux 6.6 and many of NFS."""
    place = tmp_path / "volume"
    place.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", place], check=True)
    place.chmod(0o777)
    yield f"{place}:/other"
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("profile", ["rootless-nosetuid", "restricted"])
def test_a_volume_that_cannot_record_owners_builds_without_commands_and_is_named(
    profile: str, given: Path, composed_by_root: list[str], without_attributes: str
) -> None:
    script = f"""
    builda doctor > doctor.txt || echo doctor $? >&2
    grep -A 1 'no trees can be made in the store' doctor.txt >&2
    {WITHOUT_RUN.replace("REFUSING", REFUSING)}
    c=$(builda from scratch); ! builda run $c true
    """
    environ = {**TMP, "BUILDA_ROOT": "/other/store"}
    done = in_pod(profile, script, "--cwd", VOLUME, "--bind", without_attributes, given=given, environ=environ)
    assert done.returncode == 0, done.stderr
    assert "doctor 1" in done.stderr
    assert "/other/store (ramfs)\n    because its file system keeps no attributes of users" in done.stderr
    assert "/given/Containerfile:4: no command can be run here: " in done.stderr
    assert "needs a store that records owners" in done.stderr
    assert "tmpfs from Linux 6.6 on" in done.stderr
    assert done.stdout.splitlines() == composed_by_root


def test_a_device_that_a_volume_cannot_record_is_named(given: Path, without_attributes: str) -> None:
    script = """
    builda pull -q oci-archive:/given/debian.tar:debian
    builda run $(builda from localhost/debian:debian) true
    """
    environ = {"BUILDA_ROOT": "/other/store"}
    done = in_pod("root-default", script, "--bind", without_attributes, given=given, environ=environ)
    assert done.returncode == 125
    assert re.search("keeps no attributes, in which .* are recorded: /other/store/.*/dev/", done.stderr)
    assert "hint: ext4, xfs or btrfs keep them, and tmpfs from Linux 6.6 on" in done.stderr


def test_newuidmap_without_file_capabilities_is_explained(given: Path) -> None:
    script = "builda from scratch; builda from scratch"
    done = in_pod("rootless-setuid", script, "--idmap-tools", "setuid", given=given)
    assert done.returncode == 0
    assert done.stderr.count("commands here have one id") == 1
    assert "setcap cap_setuid+ep newuidmap" in done.stderr


@pytest.mark.parametrize("profile", ["userns-pod", "userns-pod-admin", "rootless-setuid"])
def test_a_store_on_the_pods_own_file_system_holds_copies_and_says_so(profile: str, given: Path) -> None:
    script = """
    builda pull -q oci-archive:/given/debian.tar:debian
    c=$(builda from localhost/debian:debian)
    builda run $c bash -c 'useradd x && rm -rf /var/log && mkdir /var/log'
    builda commit -q $c made
    builda info
    """
    done = in_pod(profile, script, given=given, environ={"BUILDA_ROOT": "/home/build/store"})
    assert done.returncode == 0, done.stderr
    assert '"GraphDriverName": "plain"' in done.stdout
    assert done.stderr.count("overlay cannot be written in it") == 1


@pytest.mark.parametrize("profile", [name for name in EACH_MODE if name != "root-default"])
def test_a_build_on_the_pods_own_file_system_keeps_its_trees_in_memory(
    profile: str, given_owners: Path, by_root: str
) -> None:
    done = in_pod(profile, BUILD, given=given_owners, environ={**EPOCH, "BUILDA_ROOT": "/home/build/store"})
    assert done.returncode == 0, done.stderr
    assert "kept in memory until it ends" in done.stderr
    assert done.stdout.split()[0] == by_root


ON_ITS_OWN = {"BUILDA_ROOT": "/home/build/store", **EPOCH}
BY_FUSE = {**ON_ITS_OWN, "BUILDA_STORAGE_DRIVER": "fuse-overlayfs"}
needs_fuse = needs.machine(lacking())


@needs_fuse
@pytest.mark.parametrize(
    "profile", sampled(["privileged-root", "userns-pod", "rootless-setuid"], ["userns-pod", "rootless-setuid"])
)
def test_a_store_on_the_pods_own_file_system_can_be_mounted_by_fuse_overlayfs(
    profile: str, given: Path, files_by_root: list[str]
) -> None:
    script = BUILD.replace("builda prune", f"{LISTING}builda prune")
    script += "\nbuilda info | grep GraphDriver >&2\n! pgrep fuse-overlayfs\nls $BUILDA_ROOT/ingest"
    done = in_pod(profile, script, "--fuse", given=given, environ=BY_FUSE)
    assert done.returncode == 0, done.stderr
    assert '"GraphDriverName": "fuse-overlayfs"' in done.stderr
    assert done.stdout.splitlines()[2:] == files_by_root
    assert len(files_by_root) > 2500


@needs_fuse
def test_what_fuse_overlayfs_does_not_keep_is_kept_or_refused(given: Path) -> None:
    script = """
    builda pull -q oci-archive:/given/debian.tar:debian >&2
    c=$(builda from localhost/debian:debian)
    builda run $c touch /var/local/x
    builda commit -q --rm $c touched >&2
    builda run $(builda from touched) stat -c '%a %u:%g' /var/local
    builda bud -q --squash --secret id=s,src=/given/secret -t built /given >&2
    builda inspect --type image --format '{{.FromImageDigest}}' built && echo
    printf 'FROM localhost/debian:debian\\nCOPY --from=localhost/debian:debian /dev /devices\\n' > $BUILDA_ROOT/File
    builda bud -f $BUILDA_ROOT/File /given
    """
    fuse = in_pod("userns-pod", script, "--fuse", given=given, environ=BY_FUSE)
    assert fuse.returncode == 125, fuse.stderr
    assert "File:2: a device node cannot be copied here: fuse-overlayfs" in fuse.stderr
    root = in_pod("privileged-root", script, given=given, environ=EPOCH)
    assert root.returncode == 0, root.stderr
    assert fuse.stdout.splitlines()[0] == "2775 0:50"
    assert root.stdout.splitlines()[:2] == fuse.stdout.splitlines()[:2]


@needs_fuse
def test_what_fuse_overlayfs_lacks_is_named(given: Path) -> None:
    script = """
    builda from scratch || echo refused
    """
    done = in_pod("userns-pod", script, given=given, environ=BY_FUSE)
    assert done.stdout.split() == ["refused"]
    assert "/dev/fuse: No such file or directory" in done.stderr
    assert "device plugin" in done.stderr
    single = in_pod("rootless-nosetuid", script, "--fuse", given=given, environ=BY_FUSE)
    assert single.stdout.split() == ["refused"]
    assert "with one id owners are kept in an attribute that fuse-overlayfs takes from nobody" in single.stderr


BINDING = {"": ("privileged-root", "userns-pod"), "fuse-overlayfs": ("userns-pod", "rootless-setuid")}
"""The pods of `make test`, by driver: one with the store in the volume, one on its own file system."""


def binding() -> Iterator[ParameterSet]:
    """Each driver in each pod with the store at each place."""
    for driver, sample in BINDING.items():
        for profile in ("privileged-root", "userns-pod", "rootless-setuid"):
            for store in (f"{VOLUME}/store", "/home/build/store"):
                short = (profile, store.startswith(VOLUME)) in ((sample[0], True), (sample[1], False))
                marks = [*([needs_fuse] if driver else []), *([] if short else [pytest.mark.long])]
                yield pytest.param(profile, store, driver, marks=marks)


@pytest.mark.parametrize(("profile", "store", "driver"), [*binding()])
def test_what_is_written_to_a_bind_is_thrown_away(profile: str, store: str, driver: str, given: Path) -> None:
    script = """
    unset BUILDA_RUNROOT
    builda pull -q oci-archive:/given/debian.tar:debian
    mkdir -p $TMP/context/d $TMP/shared/d; echo old > $TMP/context/file; echo old > $TMP/shared/file
    cd $TMP; touch before; find . | sort > before
    change='rm -rf d && mkdir d && echo new > file && touch other && ls && cat file'
    printf 'FROM localhost/debian:debian AS first\nFROM first\n' > $TMP/File
    echo "RUN --mount=type=bind,target=/ctx,rw cd /ctx && $change" >> $TMP/File
    echo "RUN --mount=type=bind,from=first,source=/etc,target=/e,rw cd /e; rm -r apt; mkdir apt; > motd" >> $TMP/File
    builda bud -q -f $TMP/File context
    c=$(builda from localhost/debian:debian)
    builda run -v $TMP/shared:/v:O $c bash -c "cd /v && $change"
    builda run -v $TMP/shared/file:/v:O $c bash -c "echo x > /v"
    rm File; find . | sort | diff - before; cat context/file shared/file; ls -A $BUILDA_ROOT/ingest
    """
    environ = {"BUILDA_ROOT": store, "TMP": "/home/build/work", **({"BUILDA_STORAGE_DRIVER": driver} if driver else {})}
    done = in_pod(profile, f"mkdir -p $TMP\n{script}", *(("--fuse",) if driver else ()), given=given, environ=environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-6:] == ["d", "file", "other", "new", "old", "old"]


def test_a_store_that_another_kind_of_pod_made_is_refused(given: Path, tmp_path: Path) -> None:
    shared = ("--bind", f"{tmp_path}:/shared")
    environ = {"BUILDA_ROOT": "/shared/store"}
    first = in_pod("privileged-root", "builda from scratch", *shared, given=given, environ=environ)
    assert first.returncode == 0, first.stderr
    second = in_pod("root-default-unconfined", "builda from scratch", *shared, given=given, environ=environ)
    assert second.returncode == 125
    assert "store was made in mode direct, this is mode userns" in second.stderr


def test_mounts_live_inside_unshare(given: Path) -> None:
    script = """
    builda pull -q oci-archive:/given/debian.tar:debian
    c=$(builda from localhost/debian:debian)
    builda mount $c || echo refused
    export -f builda
    builda unshare bash -c "m=\\$(builda mount $c) && chown 5:6 \\$m/srv"
    builda run $c stat -c %u:%g /srv
    """
    done = in_pod("userns-pod", script, given=given, environ={"VOLUME": VOLUME})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["refused", "5:6"]
    assert "builda unshare" in done.stderr


@pytest.mark.parametrize("profile", ["restricted", "userns-pod-admin"])
def test_credentials_of_a_mounted_secret_are_used(profile: str, given: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with registry(basic=True) as server:
        auths = {"auths": {server.address: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}}
        (tmp_path / ".dockerconfigjson").write_text(json.dumps(auths))
        script = f"""
        c=$(builda from scratch)
        builda copy -q $c /given/hello /hello
        builda commit -q --rm $c {server.address}/made:1
        builda push -q --tls-verify=false {server.address}/made:1
        builda rmi -a >&2
        builda pull -q --tls-verify=false {server.address}/made:1
        ! env -u REGISTRY_AUTH_FILE python3 -m builda pull -q --policy always --tls-verify=false {server.address}/made:1
        """
        secret = ("--bind", f"{tmp_path}:/secret:ro", "--env", "REGISTRY_AUTH_FILE=/secret/.dockerconfigjson")
        done = in_pod(profile, script, *secret, given=given)
    assert done.returncode == 0, done.stderr
    assert "401" in done.stderr or "authentication required" in done.stderr


def test_a_command_has_no_network_but_lo_in_a_pod_that_may_not_configure_one(given: Path) -> None:
    script = """
    builda pull -q oci-archive:/given/debian.tar:debian
    printf '%s\\n' 'FROM localhost/debian:debian' \
      'RUN --network=none ls /sys/class/net; bash -c ": < /dev/tcp/127.0.0.1/1" 2>&1 | grep -o refused' \
      'RUN --network=none cat /proc/net/dev' > File
    builda bud --no-cache -f File /given
    """
    done = in_pod("userns-pod-admin", script, given=given)
    assert done.returncode == 0, done.stderr
    assert "\nlo\nrefused\n" in done.stdout, done.stdout
    assert interfaces(done.stdout) == ["lo"]


def test_a_network_of_nothing_that_cannot_be_had_is_refused_with_the_way_out(given: Path) -> None:
    """Without NET_ADMIN only a user namespace of a command's own could set lo up, and this pod can have no more.

    It is its limit that says so, which SYS_RESOURCE may change.
    """
    script = """
    echo 0 > /proc/sys/user/max_user_namespaces
    builda pull -q oci-archive:/given/debian.tar:debian
    printf '%s\\n' 'FROM localhost/debian:debian' 'RUN --network=none true' > File
    builda bud --no-cache -f File /given
    """
    done = in_pod("userns-pod-admin-unmasked", script, "--cap-add", "SYS_RESOURCE", given=given)
    assert done.returncode == 125, done.stdout
    words = "cannot set up the loopback interface of a network of its own: unshare: the limit user.max_user_namespaces"
    assert f"Error: File:2: {words}" in done.stderr
    assert "No space left" not in done.stderr
    assert "a pod needs the capability NET_ADMIN for --network none" in done.stderr
    assert "Traceback" not in done.stderr


def interfaces(proc_net_dev: str) -> list[str]:
    return re.findall(r"^ *([^ :]+): ", proc_net_dev, re.MULTILINE)


@pytest.mark.parametrize("without", ["slirp4netns", "pasta"])
def test_a_private_network_is_relayed_and_has_an_interface_of_its_own(
    without: str, given: Path, tmp_path: Path
) -> None:
    program = {"slirp4netns": "pasta", "pasta": "slirp4netns"}[without]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    script = f"""
    rm -f /usr/bin/{without}
    builda pull -q oci-archive:/given/debian.tar:debian >&2
    c=$(builda from localhost/debian:debian)
    builda run --network private $c bash -c 'cat /proc/net/dev /etc/resolv.conf'
    builda run --network none $c cat /proc/net/dev
    builda run $c cat /proc/net/dev
    pgrep {program} || echo no relay is left
    """
    done = in_pod("root-default-unconfined", script, "--device", "/dev/net/tun", given=given)
    assert done.returncode == 0, done.stderr
    private, none, host = done.stdout.split("Inter-")[1:]
    assert "nameserver 10.0.2.3" in private
    assert (len(interfaces(private)), interfaces(none)) == (2, ["lo"])
    assert "no relay is left" in host
    assert "network" not in done.stderr


def test_a_private_network_that_cannot_be_had_is_said_once(given: Path) -> None:
    (given / "Networked").write_text("FROM localhost/debian:debian\nRUN true\nRUN touch /x\n")
    script = """
    builda pull -q oci-archive:/given/debian.tar:debian >&2
    builda bud --network private -t x -f /given/Networked /given
    """
    done = in_pod("userns-pod", script, given=given)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("commands have the host's network: cannot make a private network") == 1
    assert "there is no /dev/net/tun" in done.stderr
    assert (
        "cannot open /dev/net/tun: No such file or directory"
        in in_pod("userns-pod", "builda doctor", given=given).stdout
    )
