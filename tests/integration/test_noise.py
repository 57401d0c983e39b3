"""A verb whose output is captured says no more on stderr than Buildah does."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Builda
from tests.support.screen import on_terminal


def test_light_verbs_are_silent_on_stderr(builda: Builda, busybox: Path, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    builda("pull", "-q", f"oci-archive:{busybox}:busybox")
    image = builda("images", "-q")
    builda("tag", image, "localhost/busybox")
    container = builda("from", "localhost/busybox")
    builda("config", "--onbuild", "RUN true", container)
    builda("commit", "-q", container, "localhost/trigger")
    for args in (
        ("from", "localhost/busybox"),
        ("from", "localhost/trigger"),
        ("copy", container, str(tmp_path / "f"), "/f"),
        ("add", "-q", container, str(tmp_path / "f"), "/g"),
        ("run", container, "true"),
        ("config", "--env", "A=1", container),
        ("mount", container),
        ("umount", container),
        ("tag", "localhost/busybox", "localhost/other"),
        ("rmi", "localhost/other"),
        ("images",),
        ("containers",),
        ("inspect", container),
        ("rename", container, "renamed"),
        ("rm", "renamed"),
        ("info",),
        ("version",),
    ):
        assert builda.run(*args).stderr == "", args


def test_who_watches_a_terminal_is_told_of_triggers(builda: Builda) -> None:
    container = builda("from", "scratch")
    builda("config", "--onbuild", "RUN true", container)
    builda("commit", "-q", container, "localhost/trigger")
    assert "1 ONBUILD instruction of the image" in on_terminal([*builda.command, "from", "localhost/trigger"]).text
