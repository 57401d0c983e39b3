"""--security-opt, --ulimit and capabilities."""

from __future__ import annotations

from pathlib import Path

import pytest

from builda.builder.run.security import capabilities, rlimits, security
from builda.errors import InvalidValue, Unsupported
from builda.isolation.spec import MASKED_PATHS, Rlimit
from builda.linux import caps
from builda.plan import RunOptions


def test_nothing_said_is_the_default() -> None:
    assert security(()) == security(("label=disable", "apparmor=unconfined", "no-new-privileges=false"))
    assert capabilities(RunOptions()) == caps.DEFAULT or set(capabilities(RunOptions())) == set(caps.DEFAULT)


def test_paths_are_masked_and_unmasked() -> None:
    masked = security(("mask=/a:/b", "unmask=/proc/k*")).masked
    assert {"/a", "/b"} <= set(masked)
    assert "/proc/kcore" not in masked
    assert security(("unmask=ALL",))[1:3] == ((), ())
    assert set(MASKED_PATHS) <= set(security(("mask=/a",)).masked)
    assert "/a" not in security(("unmask=/a", "mask=/a:/b")).masked
    assert {"/sys/dev/block", "/a/b"} <= set(security(("mask=/a/b", "unmask=/sys/*:/a*")).masked)
    assert "/sys/firmware" not in security(("unmask=/sys/*",)).masked
    assert security(("unmask=/proc/kcore:all", "mask=/a"))[1:3] == ((), ())


def test_seccomp_profiles(tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text("{}")
    assert security((f"seccomp={profile}",)).seccomp == str(profile)
    assert security(("seccomp=unconfined",)).seccomp == "unconfined"
    with pytest.raises(InvalidValue, match="no such seccomp profile"):
        security(("seccomp=/nowhere",))


def test_no_new_privileges() -> None:
    assert security(("no-new-privileges",)).no_new_privileges
    assert security(("no-new-privileges=true",)).no_new_privileges


@pytest.mark.parametrize(
    "text",
    "nonsense mask=relative mask= unmask= unmask=relative unmask=ALL:x no-new-privileges=maybe label=who:me".split(),
)
def test_unknown_options_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        security((text,))


def test_a_profile_of_apparmor_is_refused() -> None:
    with pytest.raises(Unsupported, match="AppArmor"):
        security(("apparmor=docker-default",))


def test_a_drop_beats_an_add() -> None:
    kept = capabilities(RunOptions(cap_add=("SYS_PTRACE", "cap_net_admin"), cap_drop=("SYS_PTRACE", "CHOWN")))
    assert "CAP_NET_ADMIN" in kept
    assert not {"CAP_SYS_PTRACE", "CAP_CHOWN"} & set(kept)


def test_limits() -> None:
    assert rlimits(("nofile=1024:4096", "core=-1", "RLIMIT_NOFILE=512")) == (
        Rlimit(type="RLIMIT_NOFILE", soft=512, hard=512),
        Rlimit(type="RLIMIT_CORE", soft=-1, hard=-1),
    )


@pytest.mark.parametrize("text", ["nofile", "files=1", "nofile=many", "nofile=1:x"])
def test_malformed_limits_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        rlimits((text,))
