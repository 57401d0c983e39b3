"""Secrets in images: where they are found, how they are reported, and what build and commit do about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root
TOKEN = "ghp_" + "k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh1Jf5Gd0TaEiU"
PASSWORD = "k3Xc9Qw7" + "ZtP2Lm"


def context_of(tmp_path: Path, text: str, **files: str) -> Path:
    context = tmp_path / "ctx"
    context.mkdir()
    (context / "Containerfile").write_text(text)
    for name, content in files.items():
        (context / name).write_text(content)
    return context


def test_each_place_of_an_image_is_searched_and_no_secret_is_shown(builda: Builda, tmp_path: Path) -> None:
    context = context_of(
        tmp_path,
        f"FROM scratch\nARG NPM_TOKEN\nENV DB_PASSWORD={PASSWORD}\nLABEL about=x token={TOKEN}\n"
        "COPY env /app/.env\nCOPY first /opt/\nRUN true || echo $NPM_TOKEN\n".replace("RUN", "# RUN"),
        env=f"# settings\nAPI_KEY={PASSWORD}\n",
        first=f"one\ntwo\n{TOKEN}\n",
    )
    builda("bud", "-q", "-t", "app", context)
    said = builda("image", "scan", "app")
    assert PASSWORD not in said
    assert TOKEN[4:] not in said
    lines = said.splitlines()
    assert "layer 1, /app/.env:2: password or token that is assigned (assigned-secret)" in lines
    assert "layer 2, /opt/first:3: GitHub token (github-token)" in lines
    assert any(line.startswith("Env DB_PASSWORD: ") for line in lines)
    assert any(line.startswith("Labels token: GitHub token") for line in lines)
    assert any(line.startswith("history 2: ") for line in lines)
    assert "secrets in app" in lines[-1]
    found = json.loads(builda("image", "scan", "--json", "app"))
    assert {key: value for key, value in found[1].items() if key in ("rule", "place", "line", "layer")} == {
        "rule": "github-token",
        "place": "/opt/first",
        "line": 3,
        "layer": 2,
    }
    assert builda.run("image", "scan", "--fail", "app", check=False).returncode == 1


def test_a_file_that_a_later_layer_deletes_still_ships(builda: Builda, base: str, tmp_path: Path) -> None:
    context = context_of(
        tmp_path,
        f"FROM {base}\nCOPY a /one/a\nCOPY a /two/deep/a\nCOPY a /three\nCOPY a /four\n"
        "RUN rm /one/a\nRUN rm -r /two && mkdir /two\nCOPY b /three\n",
        a=TOKEN,
        b="nothing",
    )
    builda("bud", "-q", "-t", "app", context)
    archive = tmp_path / "app.tar"
    builda("push", "-q", "app", f"oci-archive:{archive}")
    for place in ("app", f"oci-archive:{archive}"):
        found = {line.split(",")[1].split(":")[0]: line for line in builda("image", "scan", place).splitlines()[:-1]}
        assert found[" /one/a"].endswith("; deleted in layer 6, still ships in layer 2")
        assert found[" /two/deep/a"].endswith("; deleted in layer 7, still ships in layer 3")
        assert found[" /three"].endswith("; replaced in layer 8, still ships in layer 4")
        assert found[" /four"].endswith("(github-token)")


def test_build_and_commit_warn_or_fail(builda: Builda, base: str, tmp_path: Path) -> None:
    context = context_of(tmp_path, f"FROM {base}\nCOPY a /a\n", a=TOKEN)
    done = builda.run("bud", "-q", "--scan", "-t", "warned", context)
    assert "warning: secret in the image: layer 2, /a:1: GitHub token (github-token)" in done.stderr
    builda("exists", "warned")
    said = builda.fails("bud", "-q", "--scan=fail", "-t", "refused", context)
    assert "image has 1 secret, and gets no name" in said
    assert TOKEN[4:] not in said
    builda.fails("exists", "refused", status=1)
    builda.fails("bud", "--scan=fail", "--platform", "linux/amd64,linux/arm64", "-t", "refused", context)
    builda.fails("exists", "refused", status=1)
    container = builda("from", base)
    builda("copy", container, context / "a", "/a")
    assert "image has 1 secret" in builda.fails("commit", "--scan=fail", container, "refused")
    builda.fails("exists", "refused", status=1)
    assert "warning: secret" in builda.run("commit", "--scan", container, "warned").stderr
    assert "warn or fail: maybe" in builda.fails("commit", "--scan=maybe", container, "refused")
    assert "needs --scan" in builda.fails("commit", "--scan-ignore", "x", container, "refused")


def test_secrets_are_accepted_with_a_reason(builda: Builda, base: str, tmp_path: Path) -> None:
    context = context_of(tmp_path, f"FROM {base}\nCOPY a /tests/a\nENV APP_TOKEN={PASSWORD}\n", a=TOKEN)
    ignore = tmp_path / "accepted"
    ignore.write_text("# what this image may have\n\ngithub-token /tests/* # made up\n* Env APP_TOKEN  # revoked\n")
    builda("bud", "-q", "-t", "app", context)
    rest = builda("image", "scan", "--scan-ignore", ignore, "app")
    assert rest.splitlines()[-1] == "1 secret in app"
    assert "history" in rest
    ignore.write_text(ignore.read_text() + "* history * # revoked\n")
    assert builda("image", "scan", "--fail", "--scan-ignore", ignore, "app") == ""
    builda("bud", "-q", "--scan=fail", "--scan-ignore", ignore, "-t", "named", context)
    ignore.write_text("github-token /tests/*\n")
    assert f"line is not RULE PLACE # reason: {ignore}:1" in builda.fails(
        "image", "scan", "--scan-ignore", ignore, "app"
    )
    assert "no such list of accepted secrets" in builda.fails("image", "scan", "--scan-ignore", "/nowhere", "app")


def test_names_cannot_act_on_a_terminal(builda: Builda, tmp_path: Path) -> None:
    container = builda("from", "scratch")
    (tmp_path / "names").mkdir()
    evil = tmp_path / "names" / "a\x1b]0;x\x07\u202eb"
    evil.write_text(TOKEN)
    builda("copy", container, tmp_path / "names", "/")
    builda("commit", "--rm", container, "app")
    said = builda("image", "scan", "app")
    assert "\x1b" not in said
    assert "\\x1b" in said


def test_debian_has_no_secrets(builda: Builda, debian: Path) -> None:
    assert builda("image", "scan", f"oci-archive:{debian}") == ""
