"""Completion in the shells themselves: what a tab makes of a line on a terminal."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ
from tests.support.shells import interactive

pytestmark = pytest.mark.root

LINES = {
    "builda buil": "builda build",
    "builda bud -f ./Make": "builda bud -f ./Makefile",
    "builda bud --file=./Make": "builda bud --file=./Makefile",
    "builda bud -t x --secret id=x,src=./Make": "builda bud -t x --secret id=x,src=./Makefile",
    "builda copy c REA": "builda copy c README.md",
    "builda from docker-archive:./Make": "builda from docker-archive:./Makefile",
    "builda run c cat ./Make": "builda run c cat ./Makefile",
    "builda bud --pull=al": "builda bud --pull=always",
    "builda bud --layers=fa": "builda bud --layers=false",
    "builda bud --isolation nat": "builda bud --isolation native",
    "builda bud --target sec": "builda bud --target second",
    "builda --log-level tr": "builda --log-level trace",
    "builda images --filter dang": "builda images --filter dangling=",
    "builda help unsh": "builda help unshare",
    "builda manif": "builda manifest",
    "builda manifest cre": "builda manifest create",
    "builda manifest add busybox:la": "builda manifest add busybox:latest",
    "builda rmi busybox:la": "builda rmi busybox:latest",
    "builda rmi localhost/busybox:la": "builda rmi localhost/busybox:latest",
    "builda inspect busybox-w": "builda inspect busybox-working-container",
}
SOURCES = {
    "bash": 'eval "$(builda completion bash)"',
    "zsh": 'eval "$(builda completion zsh)"',
    "fish": "builda completion fish | source",
}


@pytest.mark.parametrize("shell", SOURCES)
def test_a_tab_completes_names_values_and_files(builda: Builda, base: str, tmp_path: Path, shell: str) -> None:
    builda("from", base)
    directory, home = tmp_path / "work", tmp_path / "home"
    (directory / "docs").mkdir(parents=True)
    home.mkdir()
    (directory / "Makefile").touch()
    (directory / "README.md").touch()
    (directory / "Containerfile").write_text(
        "FROM busybox AS first\nfrom first as second\nFROM x AS sec$(touch${IFS}y)\n"
    )
    found = {}
    environ = {
        **clean_environ(),
        "PATH": f"{Path(builda.command[0]).parent}:/usr/bin:/bin",
        "HOME": str(home),
        "BUILDA_ROOT": str(builda.root),
        "BUILDA_RUNROOT": str(builda.runroot),
    }
    with interactive(shell, directory, environ) as terminal:
        terminal.run(SOURCES[shell])
        for line in LINES:
            found[line] = " ".join(terminal.completed(line))
        directories = terminal.completed("builda bud do")[2]
        together = terminal.listed("builda rm", "rmi")
    assert found == LINES
    assert directories.rstrip("/") == "docs"
    assert "rename" not in together
    assert not (directory / "y").exists()


@pytest.mark.parametrize("shell", SOURCES)
def test_completing_makes_no_store(builda: Builda, tmp_path: Path, shell: str) -> None:
    environ = {**clean_environ(), "_BUILDA_COMPLETE": shell}
    root = tmp_path / "nothing"
    words = [f"builda --root {root} rmi ", ""] if shell == "bash" else ["--root", str(root), "rmi", ""]
    ended = subprocess.run([builda.command[0], *words], env=environ, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip() == "files"
    assert not root.exists()
