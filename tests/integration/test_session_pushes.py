"""In a session pushes to registries happen when the script has succeeded, in the order of their calls."""

from __future__ import annotations

import pytest

from tests.conftest import Builda
from tests.integration.test_session import left, names, session
from tests.support import needs
from tests.support.registry import registry

pytestmark = [pytest.mark.root, needs.program("docker-registry")]

SCRIPT = """
set -e
c=$(builda from scratch)
builda config --label made=first $c
builda commit -q $c app:1
builda push -q --tls-verify=false --digestfile digest app:1 $REGISTRY/app:1
echo "pushed $(cat digest)"
"""


def test_pushes_happen_when_the_script_has_succeeded(builda: Builda) -> None:
    with registry() as server:
        more = """
        builda push -q app:1 oci-archive:$PWD/archive.tar; test -s archive.tar
        builda image list-tags --tls-verify=false docker://$REGISTRY/app && exit 9
        builda config --label made=second $c
        builda commit -q $c app:1
        builda push -q --tls-verify=false app:1 $REGISTRY/app:2
        """
        result = session(builda, f"cd $(mktemp -d) {SCRIPT} {more} exit 3", REGISTRY=server.address)
        assert result.returncode == 3, result.stderr
        assert (
            "error"
            in builda.fails("image", "inspect", "--tls-verify=false", f"docker://{server.address}/app:1").lower()
        )
        result = session(builda, f"cd {builda.root.parent}; {SCRIPT} {more}", REGISTRY=server.address)
        assert result.returncode == 0, result.stderr
        inspect = ("image", "inspect", "--tls-verify=false", "--format", "{{.Digest}}")
        first, second = (builda(*inspect, f"docker://{server.address}/app:{tag}") for tag in "12")
        assert f"pushed {first}" in result.stdout.splitlines()
        assert first != second
        assert names(builda).count("localhost/app:1") == 1
        assert left(builda) == []


def test_the_first_push_that_fails_ends_the_session_and_no_name_changes(builda: Builda) -> None:
    with registry() as server:
        more = "builda push -q --retry 0 app:1 localhost:1/app:2; builda push -q app:1 localhost:1/app:3"
        result = session(builda, f"cd {builda.root.parent}; {SCRIPT} {more}", REGISTRY=server.address)
        assert result.returncode == 125
        assert "the session's push failed, so no name was changed: docker://localhost:1/app:2" in result.stderr
        assert f"pushed before it: docker://{server.address}/app:1" in result.stderr
        assert "not tried: docker://localhost:1/app:3" in result.stderr
        assert names(builda) == ""
        assert left(builda) == []


def test_a_digest_that_is_not_known_yet_is_refused(builda: Builda) -> None:
    script = SCRIPT.replace("--digestfile", "--format v2s2 --digestfile")
    result = session(builda, f"cd {builda.root.parent}; {script}", REGISTRY="localhost:1")
    assert "the digest is not known before the session has ended" in result.stderr
    assert "--no-transaction" in result.stderr
