from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.errors import BuildaError, CorruptContent
from builda.oci.config import (
    CONFIG_LIMIT,
    Healthcheck,
    History,
    ImageConfig,
    chain_ids,
    dump_config,
    parse_config,
)
from builda.oci.descriptor import Platform
from builda.oci.digest import Digest

AMD64 = Platform(os="linux", architecture="amd64")

# What an operating system takes: no NUL. Python's text of other bytes than UTF-8 (some surrogates) is allowed.
characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.integers(0xDC80, 0xDCFF).map(chr)
text = st.text(characters, max_size=8)
some = st.text(characters, min_size=1, max_size=8)
words = st.lists(text, max_size=3).map(tuple)
sets = st.sets(some, max_size=3).map(lambda items: tuple(sorted(items)))
names = st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), min_size=1, max_size=6)
unknown = st.dictionaries(
    st.text("xyz", min_size=1, max_size=4).map("org.example.".__add__), st.integers() | text | words.map(list)
)
histories = st.builds(
    History,
    created=st.none() | some,
    created_by=st.none() | some,
    author=st.none() | some,
    comment=st.none() | some,
    empty_layer=st.booleans(),
    extra=unknown,
)
healthchecks = st.builds(
    Healthcheck,
    test=words,
    interval=st.integers(0, 1 << 60),
    timeout=st.integers(0, 1 << 60),
    start_period=st.integers(0, 1 << 60),
    start_interval=st.integers(0, 1 << 60),
    retries=st.integers(0, 99),
)
configs = st.builds(
    ImageConfig,
    platform=st.builds(Platform, os=some, architecture=some, variant=st.none() | some, os_version=st.none() | some),
    created=st.none() | some,
    author=st.none() | some,
    env=st.dictionaries(names, text, max_size=4).map(lambda env: tuple(env.items())),
    entrypoint=st.none() | words,
    cmd=st.none() | words,
    user=text,
    working_dir=text,
    labels=st.dictionaries(text, st.text(max_size=8), max_size=3),
    volumes=sets,
    exposed_ports=sets,
    stop_signal=text,
    diff_ids=st.lists(st.binary(max_size=3).map(Digest.of), max_size=3).map(tuple),
    history=st.lists(histories, max_size=3).map(tuple),
    shell=st.none() | words,
    onbuild=words,
    healthcheck=st.none() | healthchecks,
    args_escaped=st.booleans(),
    hostname=text,
    domainname=text,
    comment=text,
    extra=unknown,
    extra_config=unknown,
)


@settings(deadline=None)
@given(configs)
def test_a_configuration_survives_its_bytes(config: ImageConfig) -> None:
    data = dump_config(config)
    assert parse_config(data) == config
    assert dump_config(parse_config(data)) == data


def document(**changes: Any) -> bytes:
    value = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}
    return json.dumps({**value, **changes}).encode()


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["config", "rootfs", "history", "os", "created"]), st.integers() | st.text()))
def test_values_of_wrong_types_are_refused_in_our_own_words(changes: dict[str, Any]) -> None:
    try:
        parse_config(document(**changes))
    except BuildaError:
        return
    assert not {"config", "rootfs", "history"} & changes.keys()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"null", "is not a JSON object"),
        (b"\xff", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (document(rootfs=None), "has no rootfs"),
        (document(rootfs={"type": "base", "diff_ids": []}), "not made of layers: 'base'"),
        (document(rootfs={"diff_ids": ["sha256:../x"]}), "rootfs.diff_ids"),
        (document(rootfs={"diff_ids": "x"}), "diff_ids is not an array"),
        (document(config={"Env": ["A=\0"]}), "Env of the image configuration holds a NUL"),
        (document(config={"Cmd": ["a\0"]}), "Cmd of the image configuration holds a NUL"),
        (document(config={"User": "\0"}), "User of the image configuration holds a NUL"),
        (document(config={"Env": {"A": "b"}}), "Env is not an array"),
        (document(config={"Cmd": "sh"}), "Cmd is not an array"),
        (document(config={"Volumes": ["/v"]}), "Volumes is not an object"),
        (document(config={"Healthcheck": {"Interval": "1s"}}), "not a number"),
        (document(config=[]), "config of the image configuration is not an object"),
        (document(history=[1]), "history of the image configuration"),
        (document() + b" " * CONFIG_LIMIT, "more than the limit"),
    ],
)
def test_hostile_configurations_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(CorruptContent, match=message):
        parse_config(data)


def test_unknown_keys_survive_everywhere() -> None:
    value = json.loads(document())
    value["moby.buildkit.cache.v0"] = {"a": [1, 2.5, None]}
    value["config"]["StopTimeout"] = 10
    value["history"] = [{"created_by": "x", "org.example": True}]
    assert json.loads(dump_config(parse_config(json.dumps(value).encode()))) == value


def test_what_go_writes_for_nothing_is_nothing() -> None:
    nothing = {"Env": None, "Cmd": None, "Volumes": None, "Entrypoint": None, "OnBuild": None, "Labels": None}
    config = parse_config(document(config=nothing, history=None))
    assert config == parse_config(document(config=None))
    assert (config.cmd, config.entrypoint) == (None, None)


def test_an_empty_command_is_another_thing_than_none() -> None:
    config = parse_config(document(config={"Cmd": [], "Entrypoint": []}))
    assert (config.cmd, config.entrypoint) == ((), ())
    assert b'"Cmd":[]' in dump_config(config)


def test_the_bytes_are_canonical() -> None:
    config = ImageConfig(platform=AMD64, labels={"b": "2", "a": "é"}, env=(("Z", "1"), ("A", "2")), volumes=("/v",))
    assert dump_config(config).decode() == (
        '{"architecture":"amd64","os":"linux","config":{"Env":["Z=1","A=2"],"Volumes":{"/v":{}},'
        '"Labels":{"a":"é","b":"2"}},"rootfs":{"type":"layers","diff_ids":[]}}'
    )


def test_text_that_is_not_unicode_does_not_stop_a_commit() -> None:
    config = ImageConfig(platform=AMD64, labels={"a": "\udcff"})
    assert parse_config(dump_config(config)) == config


def test_chain_ids_are_those_of_the_specification() -> None:
    first, second, third = (Digest.of(name) for name in (b"a", b"b", b"c"))
    chain = chain_ids((first, second, third))
    assert chain[0] == first
    assert chain[1] == Digest.of(f"{first} {second}".encode())
    assert chain[2] == Digest.of(f"{chain[1]} {third}".encode())
    assert chain_ids(()) == ()
