"""containers.conf, mounts.conf and storage.conf: which files count, and what their keys mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from builda import containersconf
from builda.containersconf import Defaults
from builda.errors import InvalidValue, NotFound
from builda.places import Places
from builda.runoptions import RunOptions


def write(place: Path, text: str) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place


def places(tmp_path: Path, uid: int = 0, **environ: str) -> Places:
    return Places({"HOME": str(tmp_path / "home"), **environ}, uid, tmp_path)


def loaded(tmp_path: Path, text: str) -> Defaults:
    write(tmp_path / "etc/containers/containers.conf", text)
    return containersconf.load(places(tmp_path))


def test_no_file_says_nothing(tmp_path: Path) -> None:
    write(tmp_path / "usr/share/containers/containers.conf", "[containers]\nshm_size = '1m'\n")
    assert containersconf.load(places(tmp_path)) == Defaults()


def test_keys_are_options(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """
        [containers]
        default_ulimits = ["nofile=500:500"]
        devices = ["/dev/null:/dev/x:r"]
        volumes = ["/etc:/e:ro"]
        mounts = ["type=bind,src=/a,dst=/b,ro", "source=/c,target=/d"]
        env = ["A=1"]
        dns_servers = ["1.1.1.1"]
        dns_options = ["debug"]
        dns_searches = ["x.example"]
        http_proxy = false
        no_hosts = true
        netns = "none"
        ipcns = "shareable"
        shm_size = "200k"
        seccomp_profile = "/s.json"
        default_capabilities = ["CHOWN"]
        log_driver = "journald"
        [engine]
        runtime = "mine"
        env = ["https_proxy=http://proxy.example:3128", "EMPTY="]
        retry = 10
        retry_delay = "5s"
        compression_format = "zstd:chunked"
        compression_level = 7
        [engine.runtimes]
        mine = ["/no/such", "/"]
        [network]
        network_backend = "netavark"
        """,
    )
    assert found == Defaults(
        run=RunOptions(
            ulimits=("nofile=500:500",),
            devices=("/dev/null:/dev/x:r",),
            volumes=("/etc:/e:ro", "/a:/b:ro", "/c:/d:rw"),
            env=("A=1",),
            dns=("1.1.1.1",),
            dns_options=("debug",),
            dns_search=("x.example",),
            http_proxy=False,
            no_hosts=True,
            network="none",
            shm_size=200 << 10,
            security_opts=("seccomp=/s.json",),
            runtime="/",
        ),
        retry=10,
        retry_delay=5.0,
        compression="zstd",
        compression_level=7,
        capabilities=("CHOWN",),
        env={"https_proxy": "http://proxy.example:3128", "EMPTY": ""},
    )


def test_which_file_counts(tmp_path: Path) -> None:
    system = tmp_path / "etc/containers"
    user = tmp_path / "home/.config/containers"
    write(system / "containers.conf", "[engine]\nretry = 1\ncompression_level = 1\n")
    assert containersconf.load(places(tmp_path)).retry == 1
    write(user / "containers.conf", "[engine]\nretry = 2\n")
    assert containersconf.load(places(tmp_path)) == Defaults(retry=2)
    write(system / "containers.conf.d/20-a.conf", "[engine]\nretry = 3\n")
    write(system / "containers.conf.d/10-b.conf", "[engine]\nretry = 4\ncompression_level = 4\n")
    assert containersconf.load(places(tmp_path)) == Defaults(retry=3, compression_level=4)
    write(user / "containers.conf.d/20-a.conf", "[engine]\ncompression_level = 5\n")
    assert containersconf.load(places(tmp_path)) == Defaults(retry=4, compression_level=5)
    named = str(write(tmp_path / "named", "[engine]\nretry = 6\n"))
    override = str(write(tmp_path / "override", "[engine]\ncompression_level = 7\n"))
    assert containersconf.load(places(tmp_path, CONTAINERS_CONF=named)) == Defaults(retry=6)
    both = places(tmp_path, CONTAINERS_CONF=named, CONTAINERS_CONF_OVERRIDE=override)
    assert containersconf.load(both) == Defaults(retry=6, compression_level=7)
    with pytest.raises(NotFound, match="no such configuration file: /no/such"):
        containersconf.load(places(tmp_path, CONTAINERS_CONF="/no/such"))


def test_hosts_are_added(tmp_path: Path) -> None:
    write(tmp_path / "hosts", "# ours\n10.0.0.1 one uno # first\n\n::5\tfive\n10.0.0.9\n")
    text = f'[containers]\nbase_hosts_file = "{tmp_path}/hosts"\nhost_containers_internal_ip = "10.0.0.254"\n'
    assert loaded(tmp_path, text).run.add_hosts == (
        *("one;uno:10.0.0.1", "five:::5", "host.containers.internal;host.docker.internal:10.0.0.254"),
    )
    with pytest.raises(NotFound, match="no such configuration file: /nonexistent"):
        loaded(tmp_path, '[containers]\nbase_hosts_file = "/nonexistent"\n')


def test_arrays_replace_unless_they_say_append(tmp_path: Path) -> None:
    write(tmp_path / "etc/containers/containers.conf", '[containers]\nenv = ["A=1"]\ndevices = ["/dev/null"]\n')
    drop_ins = tmp_path / "etc/containers/containers.conf.d"
    write(drop_ins / "a.conf", '[containers]\nenv = ["B=2", {append=true}]\ndevices = ["/dev/zero", {append=false}]\n')
    found = containersconf.load(places(tmp_path)).run
    assert (found.env, found.devices) == (("A=1", "B=2"), ("/dev/zero",))


@pytest.mark.parametrize(
    ("text", "unheard"),
    [
        ('default_sysctls = ["net.ipv4.ping_group_range=0 0"]', set()),
        ('default_sysctls = ["net.ipv4.tcp_timestamps=1"]', {"containers.default_sysctls"}),
        ('umask = "0022"\nuserns = "host"\nbase_hosts_file = ""', set()),
        ('umask = "0077"', {"containers.umask"}),
        ('userns = "auto"', {"containers.userns"}),
        ('base_hosts_file = "none"\nhost_containers_internal_ip = "none"', set()),
        ('base_hosts_file = "image"', {"containers.base_hosts_file"}),
        ('mounts = ["type=tmpfs,dst=/x"]', {"containers.mounts"}),
        ("pids_limit = 10\nlabel = true\ninit = true", set()),
    ],
)
def test_keys_that_matter_and_have_no_effect_are_named(tmp_path: Path, text: str, unheard: set[str]) -> None:
    assert set(loaded(tmp_path, f"[containers]\n{text}\n").unheard) == unheard


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[containers", "not valid TOML"),
        ("containers = 1", "containers is not a table"),
        ("[containers]\nenv = 1", "env is not an array of strings"),
        ("[containers]\nenv = [1]", "env is not an array of strings"),
        ('[containers]\nhttp_proxy = "yes"', "http_proxy is not true or false"),
        ('[containers]\nshm_size = "lots"', "not a size: lots, for shm_size"),
        ("[containers]\nshm_size = 5", "shm_size is not a string"),
        ('[engine]\nretry = "3"', "retry is not a number"),
        ("[engine]\nretry = true", "retry is not a number"),
        ('[engine]\nenv = ["A"]', r"a variable is NAME=VALUE in env of \[engine\]"),
        ('[engine]\nenv = ["=1"]', r"a variable is NAME=VALUE in env of \[engine\]"),
        ('[engine]\nretry_delay = "soon"', "not a duration: soon, for retry_delay"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message) as caught:
        loaded(tmp_path, text)
    assert str(tmp_path / "etc/containers/containers.conf") in str(caught.value)


def test_mounts_conf(tmp_path: Path) -> None:
    assert containersconf.subscriptions(places(tmp_path)) == ()
    write(tmp_path / "usr/share/containers/mounts.conf", "# comment\n\n/etc:/run/secrets\n/no/such:/x\n")
    assert containersconf.subscriptions(places(tmp_path)) == ("/etc:/run/secrets:O",)
    write(tmp_path / "etc/containers/mounts.conf", "/tmp\n")
    assert containersconf.subscriptions(places(tmp_path)) == ("/tmp:/tmp:O",)
    assert containersconf.subscriptions(places(tmp_path), write(tmp_path / "own", "/etc:/e\n")) == ("/etc:/e:O",)
    write(tmp_path / "home/.config/containers/mounts.conf", "relative:/x\n")
    assert containersconf.subscriptions(places(tmp_path)) == ("/tmp:/tmp:O",)
    with pytest.raises(InvalidValue, match=r"mounts.conf: relative"):
        containersconf.subscriptions(places(tmp_path, uid=7))


def test_storage_conf_is_about_another_store(tmp_path: Path) -> None:
    usual = '[storage]\ndriver = "overlay"\ngraphroot = "/var/lib/containers/storage"\nrunroot = ""\n'
    file = write(tmp_path / "etc/containers/storage.conf", usual)
    assert containersconf.foreign_store(places(tmp_path)) == ()
    file.write_text('[storage]\ndriver = "btrfs"\ngraphroot = "/data"\n[storage.options]\nmount_program = "x"\n')
    assert containersconf.foreign_store(places(tmp_path)) == (f"driver=btrfs ({file})", f"graphroot=/data ({file})")
    other = write(tmp_path / "other", '[storage]\nrunroot = "/r"\n')
    found = containersconf.foreign_store(places(tmp_path, CONTAINERS_STORAGE_CONF=str(other)))
    assert found == (f"runroot=/r ({other})",)
