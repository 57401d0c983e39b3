"""Global options and the environment: which of them wins, and what is refused."""

from __future__ import annotations

import pytest

from builda.cli.core.settings import settings
from builda.errors import InvalidValue


def test_root_has_the_system_directories() -> None:
    found = settings({}, {}, 0)
    assert (found.root, found.runroot, found.driver) == ("/var/lib/builda", "/run/builda", None)


def test_a_user_has_directories_of_their_own() -> None:
    found = settings({}, {"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/5"}, 5)
    assert (found.root, found.runroot) == ("/home/u/.local/share/builda", "/run/user/5/builda")
    assert settings({}, {"XDG_DATA_HOME": "/d", "HOME": "/h"}, 5).root == "/d/builda"


def test_an_option_beats_the_environment() -> None:
    assert settings({"root": ("/a", "/b")}, {"BUILDA_ROOT": "/c"}, 0).root == "/b"
    assert settings({}, {"BUILDA_ROOT": "/c"}, 0).root == "/c"


def test_buildas_own_variable_beats_the_ecosystems() -> None:
    environ = {"STORAGE_DRIVER": "vfs", "BUILDA_STORAGE_DRIVER": "overlay"}
    assert settings({}, environ, 0).driver == "overlay"
    assert settings({}, {"STORAGE_DRIVER": "vfs"}, 0).driver == "plain"


@pytest.mark.parametrize(
    ("option", "has_effect"),
    [
        ("", True),
        ("overlay.mount_program=/usr/bin/fuse-overlayfs", True),
        ("overlay2.mount_program=fuse-overlayfs", True),
        ("mount_program=/usr/bin/fuse-overlayfs", True),
        ("overlay.ignore_chown_errors=true", True),
        ("vfs.ignore_chown_errors=1", True),
        ("overlay.skip_mount_home=true", True),
        ("overlay.mount_program=/usr/bin/other", False),
        ("overlay.mountopt=nodev", False),
        ("overlay.size=1g", False),
        ("additionalimagestores=/x", False),
    ],
)
def test_storage_options_without_effect_are_noted(option: str, has_effect: bool) -> None:
    expected = () if has_effect else (option,)
    assert (
        settings({"storage_opt": (option,)}, {"STORAGE_OPTS": "overlay.force_mask=700"}, 0).storage_options == expected
    )
    found = settings({}, {"STORAGE_OPTS": f"{option},overlay.ignore_chown_errors=true"}, 0)
    assert (found.storage_options, found.driver) == (expected, None)


def test_a_storage_option_has_a_value() -> None:
    with pytest.raises(InvalidValue, match="storage option is not written KEY=VALUE: size"):
        settings({"storage_opt": ("size",)}, {}, 0)


def test_maps_for_from_and_build_are_one_text_each() -> None:
    found = settings({"userns_uid_map": ("0:1:2", "2:9:1"), "userns_gid_map": ("0:3:4",)}, {}, 0)
    assert (found.uid_map, found.gid_map) == ("0:1:2,2:9:1", "0:3:4")
    with pytest.raises(InvalidValue, match="--userns-gid-map needs --userns-uid-map"):
        settings({"userns_gid_map": ("0:3:4",)}, {}, 0)


def test_log_levels_decide_what_is_said() -> None:
    assert settings({"debug": ("true",)}, {}, 0).verbose
    assert not settings({"log_level": ("error",)}, {}, 0).warnings
    with pytest.raises(InvalidValue, match="unknown log level: loud"):
        settings({"log_level": ("loud",)}, {}, 0)


def test_events_want_a_descriptor() -> None:
    assert settings({"events": ("3",)}, {}, 0).events == 3
    with pytest.raises(InvalidValue, match="file descriptor: x"):
        settings({"events": ("x",)}, {}, 0)
