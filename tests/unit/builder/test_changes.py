"""commit --change and --config."""

from __future__ import annotations

import json

import pytest

from builda.builder.changes import change, merge_config
from builda.errors import InvalidValue, Unsupported
from builda.oci.config import Healthcheck, ImageConfig
from builda.oci.descriptor import Platform
from builda.oci.digest import Digest

EMPTY = ImageConfig(platform=Platform(os="linux", architecture="amd64"))


def test_commands_are_json_or_for_the_shell() -> None:
    assert change(EMPTY, 'CMD ["a", "b c"]').cmd == ("a", "b c")
    assert change(EMPTY, "CMD a b").cmd == ("/bin/sh", "-c", "a b")
    assert change(EMPTY, "cmd [ -f x ] && y").cmd == ("/bin/sh", "-c", "[ -f x ] && y")


def test_an_entrypoint_resets_the_command() -> None:
    changed = change(change(EMPTY, "CMD a"), 'ENTRYPOINT ["e"]')
    assert changed.entrypoint == ("e",)
    assert changed.cmd is None


@pytest.mark.parametrize(
    ("text", "env"),
    [
        ("ENV A=1", (("A", "1"),)),
        ("ENV A=1 B='two words'", (("A", "1"), ("B", "two words"))),
        ("ENV greeting hello  world", (("greeting", "hello  world"),)),
    ],
)
def test_env(text: str, env: tuple[tuple[str, str], ...]) -> None:
    assert change(EMPTY, text).env == env


def test_the_other_instructions() -> None:
    config = EMPTY
    for text in (
        "EXPOSE 80 53/udp",
        'LABEL a="b c"',
        "MAINTAINER A B",
        "ONBUILD RUN make",
        'SHELL ["/bin/bash", "-c"]',
        "STOPSIGNAL SIGINT",
        "USER bob:users",
        'VOLUME ["/data"]',
        "WORKDIR /srv",
        "WORKDIR app",
        "HEALTHCHECK --interval=1m30s --retries=5 CMD curl -f localhost",
    ):
        config = change(config, text)
    assert config.exposed_ports == ("53/udp", "80/tcp")
    assert config.labels == {"a": "b c"}
    assert (config.author, config.onbuild, config.shell) == ("A B", ("RUN make",), ("/bin/bash", "-c"))
    assert (config.stop_signal, config.user, config.volumes) == ("SIGINT", "bob:users", ("/data",))
    assert config.working_dir == "/srv/app"
    assert config.healthcheck == Healthcheck(test=("CMD-SHELL", "curl -f localhost"), interval=90 * 10**9, retries=5)


@pytest.mark.parametrize("text", ["RUN make", "COPY a b", "FROM x", "nonsense"])
def test_what_touches_files_is_refused(text: str) -> None:
    with pytest.raises(Unsupported, match="not an instruction that changes the configuration"):
        change(EMPTY, text)


@pytest.mark.parametrize(
    "text",
    ["ENV", "ENV A=1 B", "SHELL bash", "HEALTHCHECK --bad=1 CMD x", "HEALTHCHECK --interval=fast CMD x", "LABEL 'a"],
)
def test_malformed_instructions_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        change(EMPTY, text)


def test_a_merged_configuration_keeps_layers_and_joins_maps() -> None:
    from dataclasses import replace

    config = replace(EMPTY, diff_ids=(Digest.of(b"1"),), env=(("A", "1"),), labels={"a": "1"}, user="bob")
    data = {"author": "me", "config": {"Env": ["B=2"], "Labels": {"b": "2"}, "Cmd": ["x"]}, "rootfs": {"diff_ids": []}}
    merged = merge_config(config, json.dumps(data).encode())
    assert merged.diff_ids == config.diff_ids
    assert merged.env == (("A", "1"), ("B", "2"))
    assert merged.labels == {"a": "1", "b": "2"}
    assert (merged.author, merged.cmd, merged.user) == ("me", ("x",), "bob")


def test_a_bare_config_object_can_be_merged() -> None:
    assert merge_config(EMPTY, b'{"User": "bob"}').user == "bob"


@pytest.mark.parametrize("data", [b"", b"[]", b"nonsense"])
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidValue, match="configuration to merge is not"):
        merge_config(EMPTY, data)
