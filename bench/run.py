"""builda beside Debian's buildah: the same commands, one after the other, on stores in memory.

    python -m bench.run [WORD ...]      only the benchmarks whose names hold one of the words

A line gives the median of both, their ratio, builda's peak of resident memory, and what the design asks for on a
machine of two cores. Machines differ and shared ones swing; the ratio is what counts. `!` marks a missed budget.

Rows "in a session" are what a shell script sees that calls the verb 25 times and times each call itself. builda runs
the script by `builda session`, and begins when that has imported what it needs; buildah has no sessions.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.base_images import busybox_tree, debian_tar
from tests.support.measure import Measured, measured
from tests.support.registry import registry

BASE = "localhost/busybox:latest"
DEBIAN = "localhost/debian:latest"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Tool:
    """builda or buildah, with a store of its own. They take the same options, so that one command line serves both."""

    name: str
    program: Path
    place: Path
    options: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    """What `run` and `bud` need to start a command here."""

    def argv(self, *arguments: str | Path) -> list[str]:
        """The command line of a verb."""
        where = ["--root", self.place / "store", "--runroot", self.place / "run"]
        return [str(word) for word in (self.program, *where, *self.options, *arguments)]

    def __call__(self, *arguments: str | Path) -> str:
        """Run a verb that is not measured; its output."""
        result = subprocess.run(self.argv(*arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if result.returncode != 0:
            raise SystemExit(f"{self.name} {' '.join(map(str, arguments))}: {result.returncode}\n{result.stderr}")
        return result.stdout.strip()

    @contextmanager
    def fresh(self) -> Iterator[Tool]:
        """The same with an empty store, which is removed again."""
        place = Path(tempfile.mkdtemp(prefix="fresh-", dir=self.place))
        try:
            yield replace(self, place=place)
        finally:
            shutil.rmtree(place)

    @contextmanager
    def container(self, image: str = BASE) -> Iterator[str]:
        """A new working container."""
        name = self("from", image)
        try:
            yield name
        finally:
            self("rm", name)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files that are copied and built."""

    directory: Path

    @property
    def small(self) -> Path:
        """One file of a few bytes."""
        return self.directory / "small"

    @property
    def tree(self) -> Path:
        """20,000 files, 96 MB of text."""
        return self.directory / "tree"

    @property
    def large(self) -> Path:
        """A directory with one random file of 512 MiB."""
        return self.directory / "large"


Prepare = Callable[[Tool, Inputs, ExitStack], Sequence[str]]
"""Does what is not measured and returns the command that is."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One line of the table. Without `peer`, only builda runs; `mib` is a budget of memory.

    With `prints_seconds` the command itself says how long what is measured took.
    """

    name: str
    budget: float | None
    rounds: int
    prepare: Prepare
    peer: bool = True
    mib: int | None = None
    prints_seconds: bool = False


def main(words: Sequence[str]) -> None:
    chosen = [b for b in BENCHMARKS if not words or any(word in b.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="builda-bench-", dir="/dev/shm") as directory:
        builda, buildah = _tools(Path(directory))
        inputs = _inputs(Path(directory) / "inputs", {b.name for b in chosen})
        _load_base(builda, buildah, Path(directory))
        buildah = replace(buildah, runs=_runtime_of(buildah))
        print(f"{_interpreter():.3f} s is a bare interpreter; {buildah.argv()[0]} is {_version(buildah)}\n")
        print(f"{'what':48} {'builda':>9} {'buildah':>9} {'ratio':>6} {'budget':>8} {'memory':>9}")
        for benchmark in chosen:
            tools = [builda, buildah] if benchmark.peer else [builda]
            print(_line(benchmark, _compare(benchmark, tools, inputs)), flush=True)


def _compare(benchmark: Benchmark, tools: list[Tool], inputs: Inputs) -> dict[str, list[Measured]]:
    """Each tool's rounds, in turn, so that a slow moment of the machine meets all."""
    found: dict[str, list[Measured]] = {tool.name: [] for tool in tools}
    for _ in range(benchmark.rounds):
        for tool in tools:
            with ExitStack() as stack:
                command = benchmark.prepare(tool, inputs, stack)
                result = measured(command, environ=_environ())
            if result.status != 0:
                raise SystemExit(f"{' '.join(command)}: {result.status}\n{result.stderr}")
            if benchmark.prints_seconds:
                result = replace(result, seconds=float(result.stdout))
            found[tool.name].append(result)
    return found


def _line(benchmark: Benchmark, found: dict[str, list[Measured]]) -> str:
    seconds = {name: statistics.median(one.seconds for one in results) for name, results in found.items()}
    ours, theirs = seconds["builda"], seconds.get("buildah")
    peak = max(one.peak_mib for one in found["builda"])
    missed = (benchmark.budget and ours > benchmark.budget) or (benchmark.mib and peak > benchmark.mib)
    ratio = f"{ours / theirs:6.2f}" if theirs else "     -"
    budget = f"{benchmark.budget:7.3f}s" if benchmark.budget else "       -"
    other = f"{theirs:8.3f}s" if theirs else "        -"
    return f"{benchmark.name:48} {ours:8.3f}s {other} {ratio} {budget} {peak:5.0f} MiB{' !' if missed else ''}"


def _tools(directory: Path) -> tuple[Tool, Tool]:
    found = shutil.which("buildah")
    if found is None:
        raise SystemExit("buildah is not installed: run tools/install bench")
    builda = Tool("builda", Path(sys.executable).with_name("builda"), directory / "builda")
    buildah = Tool("buildah", Path(found), directory / "buildah", ("--storage-driver", "overlay"))
    for tool in (builda, buildah):
        tool.place.mkdir()
    return builda, buildah


def _load_base(builda: Tool, buildah: Tool, directory: Path) -> None:
    tree, archive = busybox_tree(directory / "busybox"), f"oci-archive:{directory / 'busybox.tar'}"
    with builda.container("scratch") as container:
        builda("add", "--quiet", container, tree, "/")
        builda("config", "--cmd", "sh", "--env", "PATH=/bin", container)
        builda("commit", container, BASE)
        builda("push", "--quiet", BASE, archive)
    buildah("tag", buildah("pull", "--quiet", archive), BASE)


def _runtime_of(buildah: Tool) -> tuple[str, ...]:
    """crun refuses the mixed cgroups of some machines; then runc is what buildah runs commands with."""
    choices: list[tuple[str, ...]] = [(), ("--runtime", "runc"), ("--isolation", "chroot")]
    with buildah.container() as container:
        for choice in choices:
            if subprocess.run(buildah.argv("run", *choice, container, "true"), capture_output=True).returncode == 0:
                return choice
    raise SystemExit("buildah cannot run anything on this machine")


def _inputs(directory: Path, names: set[str]) -> Inputs:
    inputs = Inputs(directory)
    directory.mkdir()
    inputs.small.write_bytes(b"small\n")
    if any("20,000" in name for name in names):
        _write_tree(inputs.tree)
    if any("512 MB" in name for name in names):
        inputs.large.mkdir()
        _write_random(inputs.large / "random", 512)
    return inputs


def _write_tree(path: Path) -> None:
    source = random.Random(1)
    alphabet = b"abcdefghijklmnopqrstuvwxyz_ (){};=\n"
    words = [bytes(source.choices(alphabet, k=source.randint(3, 9))) for _ in range(3000)]
    for number in range(20_000):
        directory = path / f"d{number // 100:03}"
        if number % 100 == 0:
            directory.mkdir(parents=True)
        size = int(4800 * source.uniform(0.2, 1.8))
        (directory / f"file{number % 100:03}.c").write_bytes(b" ".join(source.choices(words, k=size // 6 + 1))[:size])


def _write_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 4 << 30)


def _write_random(path: Path, mebibytes: int) -> None:
    with path.open("wb") as file, open("/dev/urandom", "rb") as source:
        for _ in range(mebibytes):
            file.write(source.read(MIB))


def _environ() -> dict[str, str]:
    prefixes = ("BUILDA", "STORAGE_", "CONTAINERS_", "PYTHON", "SOURCE_DATE_EPOCH")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def _interpreter() -> float:
    command = [sys.executable, "-c", "pass"]
    return statistics.median(measured(command, environ=_environ()).seconds for _ in range(9))


def _version(tool: Tool) -> str:
    return subprocess.check_output([tool.program, "--version"], text=True).split("(")[0].strip()


# What is measured.


def verb(*arguments: str) -> Prepare:
    """A verb that needs nothing but the base image."""
    return lambda tool, inputs, stack: tool.argv(*arguments)


def tree_of_many(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    """`image tree` in a store with 200 images on each other's layers."""
    from builda.api import open_builder
    from builda.builder.imageoptions import CommitOptions
    from builda.oci.edits import SetLabel
    from builda.plan import Configure

    fresh = stack.enter_context(tool.fresh())
    with open_builder(fresh.place / "store", fresh.place / "run") as builder:
        container = builder.from_image("scratch")
        for number in range(200):
            container = builder.config(container, Configure(edits=(SetLabel("n", str(number)),)))
            builder.commit(container, CommitOptions(destination=f"localhost/many:{number}"))
    return fresh.argv("image", "tree", "localhost/many:7")


def version(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    return [str(tool.program), "--version"]


def run_true(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    return tool.argv("run", *tool.runs, stack.enter_context(tool.container()), "true")


def on_container(*arguments: str) -> Prepare:
    """A verb on a new container, whose name replaces CTR."""

    def prepare(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
        container = stack.enter_context(tool.container())
        named = {"CTR": container, "FILE": str(inputs.small)}
        return tool.argv(*(named.get(word, word) for word in arguments))

    return prepare


def from_image(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    stack.callback(tool, "rm", "measured")
    return tool.argv("from", "--name", "measured", BASE)


def commit_small(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    container = stack.enter_context(tool.container())
    tool("copy", "--quiet", container, inputs.small, "/srv/")
    return tool.argv("commit", "--quiet", container, "localhost/measured")


def commit_of(member: str) -> Prepare:
    """Commit of a container into which one of the inputs was copied."""

    def prepare(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
        fresh = stack.enter_context(tool.fresh())
        container = fresh("from", "scratch")
        stack.callback(fresh, "rm", container)
        fresh("copy", "--quiet", container, getattr(inputs, member), "/srv/")
        return fresh.argv("commit", "--quiet", container, "localhost/measured")

    return prepare


def copy_tree(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    fresh = stack.enter_context(tool.fresh())
    container = fresh("from", "scratch")
    stack.callback(fresh, "rm", container)
    return fresh.argv("copy", "--quiet", container, inputs.tree, "/srv/")


def commit_sparse(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    return _commit_file(tool, stack, _write_sparse)


def commit_random(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    return _commit_file(tool, stack, lambda path: _write_random(path, 1024))


def _commit_file(tool: Tool, stack: ExitStack, write: Callable[[Path], None]) -> Sequence[str]:
    fresh = stack.enter_context(tool.fresh())
    container = fresh("from", "scratch")
    write(Path(fresh("mount", container)) / "disk")
    fresh("umount", container)
    stack.callback(fresh, "rm", container)
    return fresh.argv("commit", "--quiet", container, "localhost/measured")


def pull(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    fresh = stack.enter_context(tool.fresh())
    name = _in_a_registry(_with_debian(tool), stack)
    return fresh.argv("pull", "--quiet", "--tls-verify=false", f"docker://{name}")


def pull_and_from(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    """builda unpacks what it pulled when the first container needs it, buildah at once."""
    fresh = stack.enter_context(tool.fresh())
    name = _in_a_registry(_with_debian(tool), stack)
    stack.callback(fresh, "rm", "measured")
    return fresh.argv("from", "--quiet", "--tls-verify=false", "--name", "measured", f"docker://{name}")


def push(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    server = stack.enter_context(registry())
    return _with_debian(tool).argv(
        "push", "--quiet", "--tls-verify=false", DEBIAN, f"docker://{server.address}/debian:1"
    )


def push_again(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    name = _in_a_registry(_with_debian(tool), stack)
    return tool.argv("push", "--quiet", "--tls-verify=false", DEBIAN, f"docker://{name}")


def _in_a_registry(tool: Tool, stack: ExitStack) -> str:
    server = stack.enter_context(registry())
    name = f"{server.address}/debian:1"
    tool("push", "--quiet", "--tls-verify=false", DEBIAN, f"docker://{name}")
    return name


def _with_debian(tool: Tool) -> Tool:
    """The tool, with a Debian image in its store."""
    if DEBIAN not in tool("images", "--format", "{{.Name}}:{{.Tag}}").split():
        with tool.container("scratch") as container:
            tool("add", "--quiet", container, debian_tar(), "/")
            tool("commit", "--quiet", container, DEBIAN)
    return tool


def bud_steps(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    """Ten times ENV, COPY and RUN."""
    text, context = _steps(tool, stack)
    return _bud(tool, context, text, stack)


def _steps(tool: Tool, stack: ExitStack) -> tuple[str, Path]:
    context = _context(tool, stack)
    steps = []
    for number in range(10):
        (context / f"file{number}").write_text(f"{number}\n")
        steps.append(f"ENV N{number}={number}\nCOPY file{number} /srv/\nRUN echo {number} > /out{number}\n")
    return f"FROM {BASE}\n" + "".join(steps), context


def bud_tree(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    """COPY of 20,000 files and one RUN."""
    return _bud(tool, inputs.tree, f"FROM {BASE}\nCOPY . /srv/\nRUN echo done > /done\n", stack)


def bud_large(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    """COPY of one random file."""
    return _bud(tool, inputs.large, f"FROM {BASE}\nCOPY . /srv/\n", stack)


def bud_stages(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    """Two stages that wait two seconds each and a third that takes something from both, two at a time."""
    waiting = "".join(f"FROM {BASE} AS {name}\nRUN sleep 2; echo {name} > /{name}\n" for name in ("one", "two"))
    text = f"{waiting}FROM {BASE}\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
    command = list(_bud(tool, _context(tool, stack), text, stack))
    return [*command[:-1], "--jobs", "2", command[-1]]


def plan_thousand(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    """Parsing and planning a file of 1,000 lines with variables in all of them; nothing is built."""
    each = 'ENV V{0}=x{0} W{0}=$V{1}\nLABEL l{0}="v ${{V{0}:-d}}"\nRUN echo {0} $V{0}\n'
    text = f"FROM {BASE}\n" + "".join(each.format(number, max(number - 1, 0)) for number in range(333))
    command = list(_bud(tool, _context(tool, stack), text, stack))
    return [*command[:-1], "--print-plan", command[-1]]


def again(prepare: Prepare) -> Prepare:
    """The same build a second time, when every step of it is remembered."""

    def twice(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
        command = prepare(tool, inputs, stack)
        subprocess.run(command, check=True, capture_output=True, env=_environ())
        return command

    return twice


CALLS = 25
_LOOP = """
container=$(builda from --quiet {base})
{before}
for call in {{1..{rounds}}}; do
    start=${{EPOCHREALTIME//[.,]/}}
    builda {verb} > /dev/null
    end=${{EPOCHREALTIME//[.,]/}}
    ((call > {rounds} - {calls})) && times+=($((end - start)))
done
printf '%s\\n' "${{times[@]}}" | sort -n | awk -v middle={middle} 'NR == middle {{print $1 / 1000000}}'
"""
"""The script of a row "in a session": the median of what it calls, in seconds."""


def in_session(*arguments: str) -> Prepare:
    """A verb that a script calls again and again; CTR, FILE, RUNS and CONTEXT are filled in."""

    def prepare(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
        fresh = _with_base(tool, stack)
        steps, context = _steps(fresh, stack)
        (context / "Containerfile").write_text(steps)
        named = {"CTR": ("$container",), "FILE": (str(inputs.small),), "CONTEXT": (str(context),), "RUNS": tool.runs}
        words = [word for argument in arguments for word in named.get(argument, (argument,))]
        text = _LOOP.format(
            base=BASE,
            before="sleep 3" if tool.name == "builda" else "",
            verb=" ".join(words),
            calls=CALLS,
            rounds=CALLS + 3,
            middle=(CALLS + 1) // 2,
        )
        return _script(fresh, text, stack, is_plain=True)

    return prepare


def twelve_steps(tool: Tool, inputs: Inputs, stack: ExitStack) -> Sequence[str]:
    """A script of twelve commands: builda's in a session, where its steps are looked up."""
    fresh = _with_base(tool, stack)
    steps = "\n".join(
        f"builda config --env N{number}={number} $container\n"
        f"builda copy --quiet $container {inputs.small} /srv/{number}\n"
        f"builda run {' '.join(tool.runs)} $container -- sh -c 'echo {number} > /out{number}'"
        for number in range(3)
    )
    text = f"""
container=$(builda from --quiet {BASE})
{steps}
builda config --cmd sh $container
builda commit --quiet $container localhost/measured
"""
    return _script(fresh, text, stack)


def _with_base(tool: Tool, stack: ExitStack) -> Tool:
    """The tool with a store that has only the base image."""
    fresh = stack.enter_context(tool.fresh())
    archive = f"oci-archive:{tool.place.parent / 'busybox.tar'}"
    fresh("tag", fresh("pull", "--quiet", archive), BASE)
    return fresh


def _script(tool: Tool, text: str, stack: ExitStack, *, is_plain: bool = False) -> Sequence[str]:
    """The command that runs a script of `builda` commands; `is_plain`: without a cache of its steps."""
    file = tool.place / "script.sh"
    if tool.name == "builda":
        file.write_text(f"set -euo pipefail\n{text}")
        return tool.argv("session", *(["--no-cache"] if is_plain else []), "bash", file)
    stack.callback(tool, "rm", "--all")
    function = f'builda() {{ {shlex.join(tool.argv())} "$@"; }}'
    file.write_text(f"set -euo pipefail\n{function}\n{text}")
    return ["bash", str(file)]


def _context(tool: Tool, stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(dir=tool.place)))


def _bud(tool: Tool, context: Path, text: str, stack: ExitStack) -> Sequence[str]:
    """A build in a store that has only the base image."""
    fresh = _with_base(tool, stack)
    file = fresh.place / "Containerfile"
    file.write_text(text)
    return fresh.argv("bud", *tool.runs, "--layers", "--quiet", "--tag", "localhost/measured", "--file", file, context)


BENCHMARKS = (
    Benchmark("--version", 0.045, 15, version),
    Benchmark("images", 0.060, 15, verb("images")),
    Benchmark("containers", 0.060, 15, verb("containers")),
    Benchmark("inspect an image", 0.060, 15, verb("inspect", "--type", "image", BASE)),
    Benchmark("image tree in a store of 200 images", 0.150, 9, tree_of_many, peer=False),
    Benchmark("tag", 0.075, 15, verb("tag", BASE, "localhost/other")),
    Benchmark("config", 0.075, 15, on_container("config", "--env", "A=b", "CTR")),
    Benchmark("from a local image", 0.080, 9, from_image),
    Benchmark("run CTR true", 0.095, 9, run_true),
    Benchmark("copy one file", 0.080, 9, on_container("copy", "--quiet", "CTR", "FILE", "/srv/")),
    Benchmark("commit that", 0.080, 9, commit_small),
    Benchmark("in a session: images", 0.020, 3, in_session("images"), prints_seconds=True),
    Benchmark("in a session: tag", 0.020, 3, in_session("tag", BASE, "localhost/other"), prints_seconds=True),
    Benchmark("in a session: config", 0.020, 3, in_session("config", "--env", "A=b", "CTR"), prints_seconds=True),
    Benchmark("in a session: from a local image", 0.020, 3, in_session("from", BASE), prints_seconds=True),
    Benchmark(
        "in a session: copy one file",
        0.020,
        3,
        in_session("copy", "--quiet", "CTR", "FILE", "/srv/"),
        prints_seconds=True,
    ),
    Benchmark("in a session: run CTR true", 0.050, 3, in_session("run", "RUNS", "CTR", "true"), prints_seconds=True),
    Benchmark(
        "in a session: bud: 10x ENV, COPY, RUN, cached",
        0.050,
        3,
        in_session("bud", "RUNS", "--layers", "--quiet", "--tag", "localhost/measured", "CONTEXT"),
        prints_seconds=True,
    ),
    Benchmark("script of 12 steps, run again", 0.25, 9, again(twelve_steps)),
    Benchmark("copy 20,000 files (96 MB)", None, 3, copy_tree),
    Benchmark("commit 20,000 files (96 MB)", 0.9, 3, commit_of("tree")),
    Benchmark("commit one random file of 512 MB", 1.6, 3, commit_of("large")),
    Benchmark("pull Debian from loopback", 1.2, 3, pull),
    Benchmark("from Debian on loopback: pull and unpack", None, 3, pull_and_from),
    Benchmark("push Debian to an empty registry", 0.5, 3, push),
    Benchmark("push Debian again", 0.15, 5, push_again),
    Benchmark("commit one sparse file of 4 GB", None, 1, commit_sparse, peer=False, mib=100),
    Benchmark("commit one random file of 1 GB", None, 1, commit_random, mib=100),
    Benchmark("bud: 10x ENV, COPY, RUN", 0.75, 3, bud_steps),
    Benchmark("bud: 10x ENV, COPY, RUN, all cached", 0.15, 3, again(bud_steps)),
    Benchmark("bud: COPY 20,000 files, RUN", 1.5, 3, bud_tree),
    Benchmark("bud: COPY 20,000 files, RUN, all cached", 0.30, 3, again(bud_tree)),
    Benchmark("bud: two stages that wait 2 s, --jobs 2", 2.5, 3, bud_stages),
    Benchmark("bud: plan of 1,000 lines", 0.15, 5, plan_thousand, peer=False),
    Benchmark("bud: COPY one random file of 512 MB", 2.0, 3, bud_large),
)


if __name__ == "__main__":
    main(sys.argv[1:])
