"""Shared options to values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from builda.builder.imageoptions import RegistryAccess
from builda.cli.core import shared_options
from builda.cli.core.line import read
from builda.cli.core.options import parse_duration, split_commas
from builda.cli.verbs.run import statuses, variables
from builda.errors import InvalidValue, Unsupported
from builda.oci.descriptor import Platform
from builda.plan import RunOptions


def values_of(*args: str) -> dict[str, Any]:
    rows = (
        *shared_options.NAMESPACES,
        *shared_options.USERNS,
        *shared_options.RESOURCES,
        *shared_options.HOST,
        *shared_options.PROCESS,
        *shared_options.SECURITY,
        *shared_options.OF_RUN,
        *shared_options.REGISTRY,
        *shared_options.RETRY,
        *shared_options.PLATFORM,
        *shared_options.PULL_FLAGS,
        *shared_options.COMPRESSION,
    )
    return read(args, rows, (), {}, path="builda t", interspersed=False).values(rows)


def run_options(*args: str, environ: Mapping[str, str] | None = None) -> RunOptions:
    return shared_options.run_options(values_of(*args), environ or {})


def test_nothing_said_is_nothing_said() -> None:
    assert run_options() == RunOptions()


def test_what_is_said_of_running_arrives() -> None:
    options = run_options(
        "--net=none", "--cap-add", "A,B", "-v", "/a:/b:ro,z", "-m", "64m", "--memory-swap=-1", "--shm-size=1g",
        "--ulimit", "nofile=1:2,core=0", "--security-opt", "seccomp=a,b", "--http-proxy=false", "--tty=false",
        "--add-host", "a:1.2.3.4", "-c", "5", "--device", "/dev/null", "--group-add", "1,2",
    )  # fmt: skip
    assert options == RunOptions(
        network="none",
        cap_add=("A", "B"),
        volumes=("/a:/b:ro,z",),
        memory=64 << 20,
        memory_swap=-1,
        shm_size=1 << 30,
        ulimits=("nofile=1:2", "core=0"),
        security_opts=("seccomp=a,b",),
        http_proxy=False,
        terminal=False,
        add_hosts=("a:1.2.3.4",),
        cpu_shares=5,
        devices=("/dev/null",),
        group_add=("1", "2"),
    )


@pytest.mark.parametrize(
    ("said", "meant"), [("oci", "oci"), ("rootless", "native"), ("chroot", "chroot"), ("native", "native")]
)
def test_isolation_has_buildahs_names(said: str, meant: str) -> None:
    assert run_options("--isolation", said).isolation == meant
    assert run_options(environ={"BUILDAH_ISOLATION": said}).isolation == meant


def test_buildas_variables_win_over_buildahs_and_options_over_both() -> None:
    environ = {
        "BUILDAH_ISOLATION": "oci",
        "BUILDA_ISOLATION": "chroot",
        "BUILDAH_RUNTIME": "runc",
        "BUILDAH_NOPIVOT": "1",
    }
    options = run_options(environ=environ)
    assert (options.isolation, options.runtime, options.no_pivot) == ("chroot", "runc", True)
    assert run_options("--isolation", "native", "--runtime", "crun", environ=environ).runtime == "crun"
    with pytest.raises(InvalidValue, match="unknown isolation: vm"):
        run_options(environ={"BUILDA_ISOLATION": "vm"})


def test_maps_of_user_namespaces_are_taken_as_they_are_said() -> None:
    found = run_options("--userns-uid-map", "0:1:2,2:9:1", "--userns-uid-map=3:20:1", "--userns=private")
    assert (found.userns, found.userns_uid_map, found.userns_gid_map) == ("private", "0:1:2,2:9:1,3:20:1", None)


@pytest.mark.parametrize(
    "args",
    [["--network=none", "--dns", "1.1.1.1"], ["--net", "none", "--dns-search=x"], ["--no-hosts", "--add-host=a:b"]],
)
def test_options_that_contradict_each_other_are_refused(args: list[str]) -> None:
    with pytest.raises(InvalidValue, match="cannot be used with"):
        run_options(*args)


def test_registry_access() -> None:
    values = values_of("--creds", "u:p", "--tls-verify=false", "--retry-delay", "1.5s", "--retry=0")
    assert shared_options.registry_access(values, {}) == RegistryAccess(
        creds="u:p", tls_verify=False, retry=0, retry_delay=1.5
    )
    assert shared_options.registry_access(values_of(), {}) == RegistryAccess()


def test_a_platform_may_be_named_in_two_ways() -> None:
    assert shared_options.platform(values_of()) is None
    assert shared_options.platform(values_of("--platform=local")) is None
    assert shared_options.platform(values_of("--platform", "linux/arm64/v8")) == Platform.parse("linux/arm64/v8")
    assert shared_options.platform(values_of("--arch", "arm", "--variant", "v7")) == Platform.parse("linux/arm/v7")
    assert shared_options.platform(values_of("--override-arch", "aarch64")) == Platform.parse("linux/arm64")
    with pytest.raises(InvalidValue, match="--platform cannot be used"):
        shared_options.platform(values_of("--platform", "linux/arm64", "--arch", "arm"))


def test_pull_policies_and_their_hidden_flags() -> None:
    assert shared_options.pull_policy(values_of(), "true") == "always"
    assert shared_options.pull_policy(values_of(), None) == "missing"
    assert shared_options.pull_policy(values_of("--pull-never"), None) == "never"
    assert shared_options.pull_policy(values_of("--pull-always"), None) == "always"
    for said, flags in (("missing", ("--pull-always",)), (None, ("--pull-always", "--pull-never"))):
        with pytest.raises(InvalidValue, match="cannot be used together"):
            shared_options.pull_policy(values_of(*flags), said)
    with pytest.raises(InvalidValue, match="unknown pull policy: often"):
        shared_options.pull_policy(values_of(), "often")


def test_compression() -> None:
    assert shared_options.compression(values_of()) == (None, None)
    assert shared_options.compression(values_of("-D")) == ("none", None)
    assert shared_options.compression(values_of("--compression-format=zstd", "--compression-level=19")) == ("zstd", 19)
    assert shared_options.compression(values_of("--compression-level=9")) == ("gzip", 9)
    for wrong in (["--compression-level=10"], ["--compression-format=zstd", "--compression-level=21"]):
        with pytest.raises(InvalidValue, match="--compression-level"):
            shared_options.compression(values_of(*wrong))
    with pytest.raises(Unsupported, match="zstd:chunked"):
        shared_options.compression(values_of("--compression-format=zstd:chunked"))


def test_the_epoch_comes_from_the_environment_unless_a_time_is_given() -> None:
    environ = {"SOURCE_DATE_EPOCH": "7"}
    assert shared_options.epoch(None, None, environ) == 7
    assert shared_options.epoch(3, None, environ) == 3
    assert shared_options.epoch(None, 5, environ) is None
    with pytest.raises(InvalidValue, match="not a number of seconds: soon"):
        shared_options.epoch(None, None, {"SOURCE_DATE_EPOCH": "soon"})
    with pytest.raises(InvalidValue, match="--timestamp cannot be used"):
        shared_options.epoch(1, 1, {})


def test_variables_are_given_copied_or_matched() -> None:
    environ = {"HOME": "/h", "HOST": "n", "X": "1"}
    assert list(variables(["A=b=c", "X", "MISSING", "HO*"], environ)) == [
        ("A", "b=c"),
        ("X", "1"),
        ("HOME", "/h"),
        ("HOST", "n"),
    ]
    assert len(list(variables(["*"], environ))) == 3
    with pytest.raises(InvalidValue, match="variable has no name"):
        list(variables(["=x"], environ))


def test_valid_exit_codes() -> None:
    assert statuses(()) == {0}
    assert statuses(("0", "1")) == {0, 1}
    with pytest.raises(InvalidValue, match="exit codes must be numbers: x"):
        statuses(("x",))


@pytest.mark.parametrize(
    ("written", "nanoseconds"),
    [("0", 0), ("10s", 10**10), ("1h2m3.5s", 3723500000000), ("300ms", 3 * 10**8), ("1.5us", 1500), (".5s", 5 * 10**8)],
)
def test_durations_are_gos(written: str, nanoseconds: int) -> None:
    assert parse_duration(written) == nanoseconds


@pytest.mark.parametrize("written", ["", "10", "s", "1x", "1s 2s", "-1s"])
def test_what_is_no_duration_is_an_error(written: str) -> None:
    with pytest.raises(InvalidValue, match="not a duration"):
        parse_duration(written)


def test_lists_split_as_csv() -> None:
    assert split_commas(['a,"b,c"', "d"]) == ("a", "b,c", "d")
    with pytest.raises(InvalidValue, match="list cannot be read"):
        split_commas(['"a'])
