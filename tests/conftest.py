"""What all tests share. On CI a test that is skipped for lack of set-up fails: see tests/support/needs.py."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from builda.linux import syscalls
from tests.support import forked, needs
from tests.support.base_images import busybox_tree, debian_tar
from tests.support.registry import Registry, registry

REPOSITORY = Path(__file__).parents[1]
PROGRAM = str(Path(sys.executable).with_name("builda"))


def pytest_configure(config: pytest.Config) -> None:
    """Undo what a shell does to jobs in the background, and nohup: an ignored signal stays ignored in every child.

    Undo what make gives to its recipes: a test that runs make would be a part of the make that runs the tests.
    As root, have a mount namespace: two test runs do not see each other's mounts, and none outlives its run.
    """
    # a first example also pays for lazy imports, and machines are busy: only the timeout of a whole test counts
    settings.register_profile("builda", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("builda")
    settings.register_profile("few", max_examples=10)  # tools/coverage: tracing doubles the time of what is traced
    if config.getoption("--long"):
        os.environ[forked.START_ALWAYS] = "1"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEFILES", "MAKEOVERRIDES"):
        os.environ.pop(name, None)
    if os.geteuid() == 0:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked long")
    parser.addoption("--fuzz-seconds", type=float, default=0, help="how long the targets of tests/fuzz run in all")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="long: runs in make test-long"))
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("machine"):
        if mark.args[0] is not None:
            needs.not_here(mark.args[0])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    lacks_setup = report.skipped and call.excinfo is not None and not isinstance(call.excinfo.value, needs.NotHere)
    if lacks_setup and os.environ.get("CI") and not item.get_closest_marker("long"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped on CI, where everything must be set up: {reason}"
    return report


@dataclass(frozen=True)
class Builda:
    """The installed `builda` on a store of its own."""

    root: Path
    runroot: Path
    environ: dict[str, str] = field(default_factory=dict)
    starts: bool = field(default=False, kw_only=True)
    """Start the program for each verb, instead of forking a process that has imported it (tests.support.forked)."""

    @property
    def command(self) -> list[str]:
        return [PROGRAM, "--root", str(self.root), "--runroot", str(self.runroot)]

    def run(
        self,
        *arguments: str | Path,
        check: bool = True,
        given: str | None = None,
        cwd: Path | None = None,
        pass_fds: tuple[int, ...] = (),
        seconds: float = 240,
        **environ: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a verb; its output is captured."""
        command = [*self.command, *map(str, arguments)]
        variables = {**clean_environ(), **self.environ, **environ}
        if not self.starts and command[0] == PROGRAM and forked.can_run((*self.environ, *environ)):
            result = forked.run(
                command, environ=variables, directory=cwd, given=given, pass_fds=pass_fds, seconds=seconds
            )
        else:
            result = subprocess.run(
                command,
                capture_output=True,
                text=True,
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                cwd=cwd,
                pass_fds=pass_fds,
                env=variables,
                timeout=seconds,
            )
        if check and result.returncode != 0:
            raise AssertionError(f"builda {' '.join(map(str, arguments))}: {result.returncode}\n{result.stderr}")
        return result

    def __call__(self, *arguments: str | Path, **options: object) -> str:
        """The standard output of a verb that succeeds, without the line feed at its end."""
        return self.run(*arguments, **options).stdout.rstrip("\n")  # type: ignore[arg-type]  # passed through

    def fails(self, *arguments: str | Path, status: int = 125, **options: object) -> str:
        """The standard error of a verb that fails with `status`."""
        result = self.run(*arguments, check=False, **options)  # type: ignore[arg-type]  # passed through
        assert result.returncode == status, f"{result.returncode}: {result.stderr}"
        return result.stderr


def clean_environ() -> dict[str, str]:
    """The environment without what would change how builda behaves."""
    prefixes = ("BUILDA", "STORAGE_", "CONTAINERS_", "REGISTRY_AUTH", "SOURCE_DATE_EPOCH", "XDG_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


@pytest.fixture
def builda(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Builda]:
    """builda on an empty store."""
    starts = request.node.get_closest_marker("starts") is not None
    made = Builda(tmp_path / "store", tmp_path / "run", starts=starts)
    yield made
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed(places):
        if place.startswith(f"{tmp_path}/"):
            subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Registry]:
    """A registry on loopback that the tests of a module share."""
    with registry() as found:
        yield found


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A directory that `make` fills; the processes of one run of the tests share it, and the first makes it."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    made = (factory.getbasetemp().parent if is_worker else factory.getbasetemp()) / f"shared-{name}"
    with FileLock(made.with_suffix(".lock")):
        if not made.exists():
            partial = factory.mktemp(name)
            make(partial)
            partial.rename(made)
    return made


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI archive of a busybox image, made by builda itself."""

    def make(work: Path) -> None:
        _image_of(work, busybox_tree(work / "tree"), "busybox", '["sh"]')

    return made_once(tmp_path_factory, "busybox", make) / "busybox.tar"


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI archive of a slim Debian bookworm image, made by builda itself."""

    def make(work: Path) -> None:
        _image_of(work, debian_tar(slim=True), "debian", '["bash"]')

    return made_once(tmp_path_factory, "debian", make) / "debian.tar"


def _image_of(work: Path, content: Path, name: str, command: str) -> None:
    made = Builda(work / "store", work / "run")
    container = made("from", "scratch")
    made("add", "--quiet", container, content, "/")
    made(
        "config",
        "--cmd",
        command,
        "--env",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        container,
    )
    made("commit", "--rm", container, f"oci-archive:{work / name}.tar:{name}")


@pytest.fixture(scope="session")
def base_store(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Path:
    """A store that holds the busybox image as localhost/busybox:latest, and nothing else."""

    def make(work: Path) -> None:
        add_base(Builda(work / "store", work / "run"), busybox)

    return made_once(tmp_path_factory, "base", make) / "store"


@pytest.fixture
def base(builda: Builda, busybox: Path, base_store: Path) -> str:
    """The name of a busybox image in the store. An empty store is copied, which costs less than pulling."""
    if builda.root.exists():
        add_base(builda, busybox)
    else:
        shutil.copytree(base_store, builda.root, symlinks=True)
    return "localhost/busybox:latest"


def add_base(builda: Builda, busybox: Path) -> None:
    """Pull the busybox image and name it localhost/busybox:latest."""
    builda("pull", f"oci-archive:{busybox}:busybox")
    image = builda("images", "-q").splitlines()[0]
    builda("tag", image, "localhost/busybox:latest")
