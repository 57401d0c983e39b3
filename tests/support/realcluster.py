"""The cluster of `BUILDA_TEST_KUBECONFIG`, in which the tests of builds run that need no faults of the stand-in's.

Besides it, `BUILDA_TEST_BUILDER_IMAGE` names an image of this checkout that the nodes can pull, and
`BUILDA_TEST_REGISTRY` a HOST[:PORT][/PATH] that this machine may push to and the pods may pull from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

KUBECONFIG = "BUILDA_TEST_KUBECONFIG"
_IMAGE = "BUILDA_TEST_BUILDER_IMAGE"
_REGISTRY = "BUILDA_TEST_REGISTRY"


@dataclass(frozen=True)
class RealCluster:
    """How builda reaches it."""

    environ: Mapping[str, str]
    registry: str

    def name(self, path: str) -> str:
        """The name of an image in the registry."""
        return f"{self.registry}/{path}"


def real_cluster() -> RealCluster | None:
    """The cluster that the environment names; None for the stand-in."""
    kubeconfig = os.environ.get(KUBECONFIG)
    if not kubeconfig:
        return None
    missing = [name for name in (_IMAGE, _REGISTRY) if not os.environ.get(name)]
    if missing:
        pytest.fail(f"{KUBECONFIG} is set, and these are not: {' '.join(missing)}")
    environ = {
        "KUBECONFIG": kubeconfig,
        "BUILDA_ON": os.environ.get("BUILDA_TEST_ON", "kubernetes"),
        "BUILDA_BUILDER_IMAGE": os.environ[_IMAGE],
    }
    return RealCluster(environ, os.environ[_REGISTRY])
