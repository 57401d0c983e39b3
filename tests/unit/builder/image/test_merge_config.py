"""commit --config."""

from __future__ import annotations

import json

import pytest

from builda.builder.image.merge_config import merge_config
from builda.errors import InvalidValue
from builda.oci.config import ImageConfig
from builda.oci.descriptor import Platform
from builda.oci.digest import Digest

EMPTY = ImageConfig(platform=Platform(os="linux", architecture="amd64"))


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


@pytest.mark.parametrize("data", [b"", b"[]", b"nonsense", b"[" * 100_000, b'{"a":' * 50_000, b'"\xff"'])
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidValue, match="configuration to merge is not"):
        merge_config(EMPTY, data)
