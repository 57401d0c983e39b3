"""Filters as values, as runtime-spec JSON, and as programs that this kernel runs."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from builda.errors import InvalidValue
from builda.linux import seccomp
from builda.linux.caps import DEFAULT, NAMES
from builda.linux.syscalls import PR_SET_NO_NEW_PRIVS, prctl, set_seccomp_filter, unshare

MACHINE = os.uname().machine


def under(program: bytes, attempt: str) -> int:
    """The errno (0 for success) of an expression in a child under the filter."""
    pid = os.fork()
    if pid == 0:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        set_seccomp_filter(program)
        try:
            eval(attempt, {"os": os, "unshare": unshare})
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(scope="module")
def default() -> bytes:
    return seccomp.compile_filter(seccomp.default_filter(DEFAULT, MACHINE))


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        ("os.getpid()", 0),
        ("os.stat('/')", 0),
        ("os.waitpid(os.fork() or os._exit(0), 0)", 0),
        ("unshare(0x10000000)", errno.EPERM),
        ("unshare(0x20000)", errno.EPERM),
    ],
)
def test_the_default_filter(default: bytes, attempt: str, expected: int) -> None:
    assert under(default, attempt) == expected


def test_capabilities_open_their_calls() -> None:
    names = {name for rule in _allowed(("CAP_SYS_ADMIN",)) for name in rule.names}
    assert {"mount", "unshare", "clone", "clone3"} <= names
    assert not {"mount", "init_module", "keyctl"} & {name for rule in _allowed(()) for name in rule.names}


def _allowed(capabilities: tuple[str, ...]) -> list[seccomp.Rule]:
    return [rule for rule in seccomp.default_filter(capabilities, MACHINE).rules if rule.action == "allow"]


def test_no_call_is_both_allowed_and_refused() -> None:
    for held in ((), DEFAULT, NAMES, *((name,) for name in NAMES)):
        rules = [rule for rule in seccomp.default_filter(held, MACHINE).rules if not rule.arguments]
        allowed = {name for rule in rules if rule.action == "allow" for name in rule.names}
        assert not allowed & {name for rule in rules if rule.action == "errno" for name in rule.names}


@pytest.mark.parametrize("capabilities", [(), DEFAULT, NAMES])
def test_every_set_of_capabilities_compiles(capabilities: tuple[str, ...]) -> None:
    program = seccomp.compile_filter(seccomp.default_filter(capabilities, MACHINE))
    assert 0 < len(program) // 8 <= 4096


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_filter_survives_the_runtime_specs_form(machine: str) -> None:
    filter_ = seccomp.default_filter(DEFAULT, machine)
    data = json.dumps(seccomp.to_runtime_spec(filter_, machine)).encode()
    assert seccomp.parse_filter(data, DEFAULT, machine) == seccomp.Filter(
        filter_.default,
        tuple(rule for rule in filter_.rules if rule.names),
        filter_.default_error,
        filter_.architectures,
    )


def test_a_profile_with_conditions_of_capabilities_and_arguments() -> None:
    def entry(names: str, **more: object) -> dict[str, object]:
        return {"names": names.split(), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV, **more}

    argument = {"index": 0, "value": 0x10000000, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 0x10000000}
    document = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            entry("chdir", includes={"caps": ["CAP_SYS_ADMIN"]}),
            entry("getcwd", excludes={"caps": ["CAP_SYS_ADMIN"]}),
            entry("rmdir", includes={"arches": ["sparc"]}),
            entry("uname", includes={"minKernel": "99.0"}),
            entry("unshare", args=[argument]),
        ],
    }
    program = seccomp.compile_filter(seccomp.parse_filter(json.dumps(document).encode(), DEFAULT, MACHINE))
    assert under(program, "os.chdir('/')") == 0
    assert under(program, "os.getcwd()") == errno.EXDEV
    assert under(program, "os.rmdir('/nowhere')") == errno.ENOENT
    assert under(program, "os.uname()") == 0
    assert under(program, "unshare(0x10000000)") == errno.EXDEV
    assert under(program, "unshare(0x200)") == 0


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"defaultAction": "SCMP_ACT_LUNCH"}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}',
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", '
        b'"args": [{"index": 0, "value": 1, "op": "SCMP_CMP_LUNCH"}]}]}',
    ],
)
def test_a_profile_that_cannot_be_is_refused_by_name(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_bytes(data)
    with pytest.raises(InvalidValue, match=r"profile\.json"):
        seccomp.filter_program(str(tmp_path / "profile.json"), DEFAULT, None)


def test_a_missing_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"nowhere\.json"):
        seccomp.filter_program(str(tmp_path / "nowhere.json"), DEFAULT, None)


def test_the_compiled_filter_is_kept_and_mended(tmp_path: Path) -> None:
    first = seccomp.filter_program(None, DEFAULT, tmp_path)
    assert first
    (kept,) = tmp_path.iterdir()
    assert seccomp._read_cached(kept) == first
    for damage in (kept.read_bytes()[:-8], b"", b"\n", kept.read_bytes().replace(first[:64], bytes(64))):
        kept.write_bytes(damage)
        assert seccomp.filter_program(None, DEFAULT, tmp_path) == first
        assert seccomp._read_cached(kept) == first


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert seccomp.filter_program(None, DEFAULT, tmp_path / "file" / "cache")


def test_unconfined_is_no_filter() -> None:
    assert seccomp.filter_program("unconfined", DEFAULT, None) is None
