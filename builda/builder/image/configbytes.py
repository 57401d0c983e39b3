"""The bytes of an image configuration, and an image's documents in the store."""

from __future__ import annotations

from builda.oci import mediatype
from builda.oci.config import dump_config
from builda.oci.docker import dump_docker_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.oci.config import ImageConfig
    from builda.oci.descriptor import Descriptor
    from builda.oci.manifest import Manifest
    from builda.store.store import Store


def config_bytes(config: ImageConfig, media_type: str) -> bytes:
    """The configuration in the words of its media type."""
    return dump_docker_config(config) if media_type == mediatype.DOCKER_CONFIG else dump_config(config)


def stored(store: Store, config: ImageConfig, manifest: Manifest) -> Descriptor:
    """The manifest's descriptor; all of the image is in the store, which has no record of it yet."""
    kind = manifest.config.media_type
    store.put_bytes(config_bytes(config, kind), kind)
    return store.put_bytes(manifest.dump(), manifest.media_type)
