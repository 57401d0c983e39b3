"""`--log-level debug` tells what was decided, and why; nothing of it is said otherwise."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ
from tests.support.registry import PASSWORD, USER, registry

pytestmark = [pytest.mark.root, pytest.mark.starts]


def test_a_build_says_its_mode_driver_keys_names_and_mounts(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("very-secret")
    (tmp_path / "f").write_text("1")
    (tmp_path / "Containerfile").write_text(
        f"FROM {base}\nCOPY f /f\nRUN --mount=type=secret,id=token KEY=other-secret cat /run/secrets/token >/dev/null\n"
    )
    options = ["bud", "--secret", f"id=token,src={tmp_path}/token", str(tmp_path)]
    first = builda.run("--log-level", "debug", *options).stderr
    assert "mode: direct, asked for: auto" in first
    assert f"store: {builda.root}, run root {builda.runroot}, driver overlay" in first
    assert f"image: {base} for linux/" in first
    assert "cache: 2/3 key " in first
    assert ": not found: " in first
    assert "run: isolation native, network private, uid 0, gid 0, in /; mounts: overlay overlay at /; " in first
    assert "at /run/secrets/token" in first
    assert "very-secret" not in first
    assert "other-secret" not in first

    again = builda.run("--log-level", "debug", *options).stderr
    assert again.count(": found, layer ") == 2
    (tmp_path / "f").write_text("2")
    changed = builda.run("--log-level", "debug", *options).stderr
    assert "not found: inputs.content was sha256:" in changed

    quiet = builda.run(*options).stderr
    assert "cache:" not in quiet
    assert "mode:" not in quiet


def test_what_a_name_may_stand_for_is_told_before_a_registry_is_asked(builda: Builda, tmp_path: Path) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text('[aliases]\napp = "localhost:1/team/app"\n')
    command = ["--log-level=debug", "--registries-conf", str(conf), "pull", "--retry=0", "app"]
    said = builda.run(*command, check=False).stderr
    assert "name: app may be localhost:1/team/app:latest\n" in said
    assert "image: app for linux/" in said


def test_requests_are_told_without_secrets(builda: Builda, base: str) -> None:
    with registry(basic=True, tls=True) as server:
        name = f"docker://{server.address}/app:1"
        said = builda.run(
            "--log-level=debug", "push", "--creds", f"{USER}:{PASSWORD}", "--cert-dir", server.cert_dir, base, name
        ).stderr
    assert '"PUT /v2/app/manifests/1 HTTP/1.1" 201' in said
    assert PASSWORD not in said
    assert "_state=" not in said  # the token of an upload


def test_decisions_are_events_too(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nCOPY Containerfile /\n")
    path = tmp_path / "events"
    with path.open("wb") as file:
        command = [*builda.command, "--log-level=debug", "--events", str(file.fileno()), "bud", str(tmp_path)]
        subprocess.run(command, pass_fds=[file.fileno()], check=True, capture_output=True, env=clean_environ())
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert {event["subject"] for event in found if event["event"] == "decided"} >= {"mode", "store", "image", "cache"}
    assert os.path.getsize(path) > 0
