"""Options and variables of the ecosystem, as CI tasks pass them: each works, or builda says that it has no effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root
FUSE = "overlay.mount_program=/usr/bin/fuse-overlayfs"


def test_a_mount_program_is_a_wish_that_every_verb_takes(builda: Builda, base: str) -> None:
    for verb in (("images",), ("from", "-q", base), ("info",)):
        assert builda.run(*verb, STORAGE_OPTS=FUSE).stderr == ""
        assert builda.run("--storage-opt", FUSE, *verb).stderr == ""


def test_a_storage_option_without_effect_is_said_once(builda: Builda, base: str) -> None:
    said = builda.run("from", "-q", base, STORAGE_OPTS=f"{FUSE},overlay.size=1g").stderr
    assert said.count("storage option has no effect: overlay.size=1g") == 1
    assert builda.run("images", "--storage-opt", "overlay.size=1g").stderr == ""


def test_empty_build_arguments_are_none(builda: Builda, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\nARG A=1\nLABEL a=$A\n")
    image = builda("bud", "-q", "--build-arg=", "--build-arg", "A=2", "--build-arg", "", tmp_path)
    assert builda("inspect", "--format", "{{.OCIv1.Config.Labels.a}}", image) == "2"
    assert "argument has no name: '=x'" in builda.fails("bud", "--build-arg", "=x", tmp_path)


MISSING = {
    "not found": 'raise RuntimeError("Unable to find libseccomp")',
    "broken": 'raise OSError("x.so: file too short")',
}


@pytest.mark.parametrize("how", MISSING)
def test_a_missing_libseccomp_is_named_with_its_package(builda: Builda, base: str, tmp_path: Path, how: str) -> None:
    (tmp_path / "pyseccomp.py").write_text(MISSING[how])
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN true\n")
    without = {"PYTHONPATH": str(tmp_path)}
    container = builda("from", "-q", base)
    for verb in (("run", container, "true"), ("bud", "-q", tmp_path)):
        said = builda.fails(*verb, **without)
        assert "commands cannot be run without libseccomp: " in said
        assert "libseccomp2 (Debian" in said
    assert "Traceback" not in said
    assert builda("run", "--security-opt", "seccomp=unconfined", container, "echo", "x", **without) == "x"
    done = builda.run("doctor", check=False, **without)
    assert "! commands cannot be run\n    because commands cannot be run without libseccomp" in done.stdout
    assert (done.returncode, "apt-get install libseccomp2" in done.stdout) == (1, True)
    assert builda("commit", "-q", container, **without)
