"""signedIdentity: which names in signatures count for which image."""

from __future__ import annotations

import pytest

from builda.oci.reference import Reference
from builda.trust.identity import Identity, matches, parse_identity

DIGEST = "sha256:" + "a" * 64
REMAP = {"type": "remapIdentity", "prefix": "mirror.io:5/vendor", "signedPrefix": "vendor.io"}


def identity(value: object) -> Identity:
    return parse_identity(value if isinstance(value, dict) else {"type": value}, "p.json")


@pytest.mark.parametrize(
    ("kind", "image", "signed", "counts"),
    [
        ("matchExact", "r.io/a:1", "r.io/a:1", True),
        ("matchExact", "r.io/a:1", "r.io/a:2", False),
        ("matchExact", "r.io/a:1", "r.io/a", False),
        ("matchExact", "r.io/a:1", "r.io:443/a:1", False),
        ("matchExact", "r.io/a", "r.io/a:latest", True),
        ("matchExact", "r.io/a", "r.io/a", False),
        ("matchExact", f"r.io/a@{DIGEST}", "r.io/a:1", False),
        ("matchExact", f"r.io/a@{DIGEST}", f"r.io/a@{DIGEST}", True),
        ("matchExact", f"r.io/a:1@{DIGEST}", f"r.io/a@{DIGEST}", True),
        ("matchExact", "busybox:1", "docker.io/library/busybox:1", True),
        ("matchExact", "docker.io/library/busybox:1", "busybox:1", True),
        ("matchRepoDigestOrExact", "r.io/a:1", "r.io/a:1", True),
        ("matchRepoDigestOrExact", "r.io/a:1", "r.io/a:2", False),
        ("matchRepoDigestOrExact", "r.io/a:1", "r.io/a", False),
        ("matchRepoDigestOrExact", f"r.io/a@{DIGEST}", "r.io/a:1", True),
        ("matchRepoDigestOrExact", f"r.io/a:9@{DIGEST}", "r.io/a:1", True),
        ("matchRepoDigestOrExact", f"r.io/a@{DIGEST}", "r.io/a", False),
        ("matchRepoDigestOrExact", f"r.io/a@{DIGEST}", "r.io/b:1", False),
        ("matchRepository", "r.io/a:1", "r.io/a:2", True),
        ("matchRepository", "r.io/a:1", "r.io/a", True),
        ("matchRepository", "r.io/a:1", "r.io/a/b:1", False),
        ("matchRepository", "r.io/a:1", "r.io/A:1", False),
        ("matchRepository", "r.io/a:1", "", False),
        ("matchRepository", "r.io/a:1", "../r.io/a", False),
        ({"type": "exactReference", "dockerReference": "q.io/x:1"}, "r.io/a:1", "q.io/x:1", True),
        ({"type": "exactReference", "dockerReference": "q.io/x:1"}, "q.io/x:2", "q.io/x:2", False),
        ({"type": "exactReference", "dockerReference": "q.io/x:1"}, "q.io/x:1", "q.io/x", False),
        ({"type": "exactRepository", "dockerRepository": "q.io/x"}, "r.io/a:1", "q.io/x:7", True),
        ({"type": "exactRepository", "dockerRepository": "q.io/x"}, "r.io/a:1", "r.io/a:1", False),
        ({"type": "exactRepository", "dockerRepository": "busybox"}, "r.io/a:1", "docker.io/library/busybox:7", True),
        (REMAP, "mirror.io:5/vendor/p/i:1", "vendor.io/p/i:1", True),
        (REMAP, "mirror.io:5/vendor/p/i:1", "vendor.io/p/i:2", False),
        (REMAP, "mirror.io:5/vendor/p/i:1", "mirror.io:5/vendor/p/i:1", False),
        (REMAP, "mirror.io:5/vendors/i:1", "mirror.io:5/vendors/i:1", True),
        (REMAP, f"mirror.io:5/vendor/p@{DIGEST}", "vendor.io/p:1", True),
        (REMAP, "mirror.io:5/vendor:1", "vendor.io:1", False),
        (REMAP, "other.io/a:1", "other.io/a:1", True),
    ],
)
def test_names_that_count(kind: object, image: str, signed: str, counts: bool) -> None:
    assert matches(identity(kind), Reference.parse(image), signed) is counts


def test_an_image_without_a_name_has_exact_identities_only() -> None:
    for kind in ("matchExact", "matchRepoDigestOrExact", "matchRepository", REMAP):
        assert not matches(identity(kind), None, "r.io/a:1")
    assert matches(identity({"type": "exactReference", "dockerReference": "r.io/a:1"}), None, "r.io/a:1")
    assert matches(identity({"type": "exactRepository", "dockerRepository": "r.io/a"}), None, "r.io/a:1")
