from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings

from builda.errors import Unsupported
from builda.oci import mediatype
from builda.oci.config import Healthcheck, ImageConfig, dump_config, parse_config
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.docker import dump_docker_config, retyped, without_bookkeeping
from builda.oci.manifest import Manifest, parse
from builda.transfer.validate import disagreements
from tests.support.memory import AMD64, random_image
from tests.unit.oci.test_config import configs


def to_docker(manifest: Manifest, config: ImageConfig) -> tuple[bytes, bytes]:
    """The image as Docker writes it: the bytes of its manifest and of its configuration."""
    data = dump_docker_config(config)
    return replace(retyped(manifest, "docker"), config=described(mediatype.DOCKER_CONFIG, data)).dump(), data


def from_docker(manifest: Manifest, config: ImageConfig) -> tuple[bytes, bytes]:
    """The image as OCI writes it: the bytes of its manifest and of its configuration."""
    data = dump_config(without_bookkeeping(config))
    return replace(retyped(manifest, "oci"), config=described(mediatype.CONFIG, data)).dump(), data


def described(media_type: str, data: bytes) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))


def parts(image_format: str = "oci") -> tuple[Manifest, ImageConfig]:
    image = random_image(image_format=image_format)  # type: ignore[arg-type]  # one of the two literals
    return image.image, image.config


def manifest_of(data: bytes) -> Manifest:
    document = parse(data)
    assert isinstance(document, Manifest)
    return document


def test_a_converted_image_is_a_whole_docker_image() -> None:
    manifest, config = parts()
    data, config_data = to_docker(replace(manifest, annotations={"a": "b"}), config)
    made = manifest_of(data)
    assert made.media_type == mediatype.DOCKER_MANIFEST
    assert made.config == Descriptor(
        media_type=mediatype.DOCKER_CONFIG, digest=Digest.of(config_data), size=len(config_data)
    )
    assert [layer.digest for layer in made.layers] == [layer.digest for layer in manifest.layers]
    assert disagreements(made, parse_config(config_data)) == ()


def test_there_and_back_is_the_same_image() -> None:
    manifest, config = parts()
    data, config_data = to_docker(manifest, config)
    assert from_docker(manifest_of(data), parse_config(config_data)) == (manifest.dump(), dump_config(config))


@settings(deadline=None)
@given(configs)
def test_a_configuration_survives_docker(config: ImageConfig) -> None:
    data = dump_docker_config(config)
    assert without_bookkeeping(parse_config(data)) == config
    assert dump_docker_config(parse_config(data)) == data


def test_all_fields_are_there_that_docker_expects() -> None:
    value = json.loads(dump_docker_config(ImageConfig(platform=AMD64)))
    assert value["config"] == value["container_config"]
    assert value["config"] == {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": None,
        "Cmd": None,
        "Image": "",
        "Volumes": None,
        "WorkingDir": "",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": None,
    }


def test_what_docker_notes_of_its_own_containers_is_left_behind() -> None:
    manifest, config = parts("docker")
    config = replace(
        config,
        healthcheck=Healthcheck(test=("CMD", "true")),
        extra={"container": "abc", "parent": "sha256:x", "docker_version": "20.10", "org.example": 1},
        extra_config={"Image": "sha256:base", "AttachStdout": True, "StopTimeout": 3, "Tty": False},
    )
    value = json.loads(from_docker(manifest, config)[1])
    assert value["config"]["Healthcheck"] == {"Test": ["CMD", "true"]}
    assert {key: value[key] for key in value if key not in ("created", "history", "rootfs", "config")} == {
        "architecture": "amd64",
        "os": "linux",
        "docker_version": "20.10",
        "org.example": 1,
    }
    assert {"AttachStdout", "StopTimeout"} <= value["config"].keys()
    assert not {"Image", "Tty"} & value["config"].keys()


def test_foreign_layers_cannot_be_converted() -> None:
    manifest, config = parts()
    foreign = replace(manifest.layers[0], media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    with pytest.raises(Unsupported, match="foreign"):
        to_docker(replace(manifest, layers=(foreign,)), config)
