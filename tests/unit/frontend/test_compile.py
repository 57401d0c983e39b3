"""A Containerfile compiled to steps and a configuration, as BuildKit understands it. No store or image is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from builda.errors import ContainerfileError
from builda.frontend.checks import Facts, check
from builda.frontend.compile import Compiled, to_plan
from builda.frontend.compileoptions import CompileOptions
from builda.frontend.parse import parse
from builda.frontend.sourcetext import SourceText
from builda.oci.config import ImageConfig, empty_config
from builda.oci.descriptor import Platform
from builda.permissions import Permissions
from builda.plan import COPY_FLAGS, Copy, FromImage, FromStage, MakeDirectory, Run

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
OPTIONS = CompileOptions(platform=AMD64, build_platform=AMD64)


def base(name: str, platform: Platform) -> ImageConfig:
    """The configuration of every base image: a user, a directory and a variable."""
    env = (("PATH", "/bin"), ("FROM_BASE", "1"))
    return replace(empty_config(platform), env=env, user="app", working_dir="/srv")


def compiled(text: str, options: CompileOptions = OPTIONS, **args: str) -> Compiled:
    chosen = replace(options, build_args=args) if args else options
    return to_plan(parse(SourceText.of(text, "f")), chosen, base)


def config(text: str, options: CompileOptions = OPTIONS, **args: str) -> ImageConfig:
    made = compiled(text, options, **args)
    return made.configs[made.plan.target]


def env(text: str, **args: Any) -> Mapping[str, str]:
    return config(text, **args).environ()


def steps(text: str, kind: type, options: CompileOptions = OPTIONS) -> list:  # type: ignore[type-arg]
    made = compiled(text, options)
    return [step for step in made.plan.stages[made.plan.target].steps if isinstance(step, kind)]


def refused(text: str, **args: Any) -> str:
    with pytest.raises(ContainerfileError) as caught:
        compiled(text, **args)
    assert caught.value.line is not None
    return f"{caught.value.file}:{caught.value.line}: {caught.value}"


# Values


@pytest.mark.parametrize(
    ("text", "args", "value"),
    [
        ("FROM scratch\nARG X=1\nARG X\nENV Y=$X\n", {}, "1"),
        ("FROM scratch AS a\nARG X=1\nFROM a\nARG X\nENV Y=$X\n", {}, "1"),
        ("FROM scratch AS a\nARG X=1\nFROM a\nENV Y=$X\n", {}, "1"),
        ("ARG X=0\nFROM scratch\nARG X=1\nARG X\nENV Y=$X\n", {}, "0"),
        ("ARG X=0\nARG X\nFROM scratch\nARG X\nENV Y=$X\n", {}, "0"),
        ("FROM scratch\nARG X=1\nARG X\nENV Y=$X\n", {"X": "2"}, "2"),
        ("FROM scratch\nARG X\nENV Y=$X\n", {}, ""),
        ("FROM scratch\nARG X=\nENV Y=${X-unset}\n", {}, ""),
        ("FROM scratch\nARG Y=${Z:?unset}\nENV Y=$Y\n", {"Y": "given"}, "given"),
        ("ARG Y=${Z:?unset}\nFROM scratch\nARG Y\nENV Y=$Y\n", {"Y": "given"}, "given"),
        ("FROM scratch\nARG Y=${Z:bad}\nENV Y=$Y\n", {"Y": "given"}, "given"),
        ("FROM scratch\nENV n=X\nARG ${n}=v\nENV Y=$X\n", {}, "v"),
        ("FROM scratch\nENV n=X\nARG ${n}\nENV Y=$X\n", {"X": "b"}, "b"),
        ("ARG n=X\nARG ${n}=v\nFROM scratch\nARG X\nENV Y=$X\n", {}, "v"),
        ("FROM scratch\nARG TARGETSTAGE\nENV Y=$TARGETSTAGE\n", {}, "default"),
        ("FROM scratch AS last\nARG TARGETSTAGE\nENV Y=$TARGETSTAGE\n", {}, "last"),
        ("FROM scratch\nARG TARGETARCH\nENV Y=$TARGETARCH\n", {}, "amd64"),
        ("FROM scratch\nARG TARGETARCH\nENV Y=$TARGETARCH\n", {"TARGETARCH": "mine"}, "mine"),
        ("FROM scratch\nENV Y=$TARGETARCH\n", {}, ""),
    ],
)
def test_the_value_of_an_arg(text: str, args: dict[str, str], value: str) -> None:
    assert env(text, **args)["Y"] == value


@pytest.mark.parametrize("instruction", ["USER", "WORKDIR"])
@pytest.mark.parametrize("value", ["$X", "${X}", '""', "''", '"$X"'])
def test_what_expands_to_nothing_changes_nothing(instruction: str, value: str) -> None:
    made = config(f"FROM image\nARG X\n{instruction} {value}\n")
    assert (made.user, made.working_dir) == ("app", "/srv")
    assert steps(f"FROM image\nARG X\n{instruction} {value}\n", MakeDirectory) == []


def test_an_undeclared_arg_in_from_is_empty_though_it_is_given() -> None:
    text = "FROM x-${UNDECLARED}end\n"
    assert compiled(text, UNDECLARED="1").plan.stages[0].base == FromImage("x-end")
    assert compiled(f"ARG UNDECLARED\n{text}", UNDECLARED="1").plan.stages[0].base == FromImage("x-1end")


def test_stages_by_number_and_names_with_slashes() -> None:
    assert compiled("FROM scratch\nFROM 0\n").plan.stages[1].base == FromStage(0)
    assert compiled("FROM scratch\nFROM 1\n").plan.stages[1].base == FromImage("1")
    made = compiled("FROM scratch AS platform-arm/v7\nFROM platform-arm/v7\nCOPY --from=platform-arm/v7 /a /b\n")
    assert made.plan.stages[1].base == FromStage(0)


def test_the_platform_that_was_asked_for_is_the_images() -> None:
    asked = CompileOptions(platform=ARM64, build_platform=AMD64, platform_asked=True)
    assert config("FROM --platform=linux/amd64 image\n", asked).platform == ARM64
    assert config("FROM --platform=$BUILDPLATFORM image AS b\nFROM scratch\n", asked).platform == ARM64
    assert config("FROM --platform=linux/arm64 image\n").platform == ARM64
    assert config("FROM --platform=linux image\n").platform == AMD64
    assert str(config("FROM --platform=wasi/wasm32 scratch\n").platform) == "wasi/wasm32"


# Words and forms


@pytest.mark.parametrize(
    ("line", "body", "data"),
    [
        ("COPY <<EOF /x", "$FROM_BASE\\n\\$x\nEOF", b"1n$x\n"),
        ("COPY <<'EOF' /x", "$FROM_BASE\\n\nEOF", b"$FROM_BASE\\n\n"),
        ('COPY <<E"O"F /x', "$FROM_BASE\nEOF", b"$FROM_BASE\n"),
        ("COPY <<\\EOF /x", "$FROM_BASE\nEOF", b"1\n"),
        ("COPY << EOF /x", "$FROM_BASE\nEOF", b"1\n"),
        ("COPY <<-EOF /x", "\t$FROM_BASE\n\tEOF", b"1\n"),
        ("COPY --from=image <<EOF /x", "a\nEOF", b"a\n"),
        ("ADD <<EOF /x", "\\\nEOF", b"\n"),
    ],
)
def test_heredocs_of_copy(line: str, body: str, data: bytes) -> None:
    (copy,) = steps(f"FROM image\n{line}\n{body}\nUSER x\n", Copy)
    assert (copy.sources, copy.destination, copy.inline[0].data) == ((), "/x", data)


@pytest.mark.parametrize(
    ("line", "ran"),
    [
        ("RUN <<EOF", "echo x\n"),
        ('RUN <<E"O"F', "echo x\n"),
        ("RUN <<'EOF'", "echo x\n"),
        ("RUN << EOF", "echo x\n"),
        ("RUN cat << EOF > /x", "cat << EOF > /x\necho x\nEOF\n"),
        ("RUN cat <<\\EOF > /x", "cat <<\\EOF > /x\necho x\nEOF\n"),
        ("RUN 3<<EOF cat <&3", "3<<EOF cat <&3\necho x\nEOF\n"),
    ],
)
def test_heredocs_of_run(line: str, ran: str) -> None:
    (run,) = steps(f"FROM image\n{line}\necho x\nEOF\n", Run)
    assert run.args == ("/bin/sh", "-c", ran)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN echo no\\\\\nRUN last", ["echo no\\\\", "last"]),
        ("RUN a \\\n  b \\\n\n  # c\n  d", ["a   b   d"]),
        ("RUN a \\", ["a"]),
        ("\\\nRUN a", ["a"]),
        ("RUN a\\\\\\\nRUN b", ["a\\\\\\", "b"]),
        ("RUN\\\n a", ["a"]),
        ("RUN a\u00a0b c", ["a\u00a0b c"]),
        ("RUN a\u2028b\x1cc", ["a\u2028b\x1cc"]),
    ],
)
def test_continuations_and_white_space(text: str, expected: list[str]) -> None:
    assert [run.args[-1] for run in steps(f"FROM image\n{text}\n", Run)] == expected


@pytest.mark.parametrize("text", ["ENV D=C:\\\\", "ENV D=C:\\\\\n", "ENV D=C:\\\\\n\n# end\n"])
def test_a_last_line_may_end_in_backslashes(text: str) -> None:
    assert env(f"FROM image\n{text}")["D"] == "C:\\"


def test_no_break_spaces_split_no_words() -> None:
    (copy,) = steps("FROM image\nCOPY a\u00a0b c /\n", Copy)
    assert copy.sources == ("a\u00a0b", "c")
    assert env("FROM image\nENV A=b\u2003c D=e\n") == {"PATH": "/bin", "FROM_BASE": "1", "A": "b\u2003c", "D": "e"}
    assert refused("\u00a0FROM image\n") == "f:1: unknown instruction: \u00a0FROM"


@pytest.mark.parametrize(
    ("text", "test"),
    [
        ("HEALTHCHECK CMD --x y", ("CMD-SHELL", "--x y")),
        ('HEALTHCHECK CMD ["--x", "y"]', ("CMD", "--x", "y")),
        ("HEALTHCHECK --interval=1s NONE", ("NONE",)),
        ("HEALTHCHECK --interval=1s CMD  curl  x", ("CMD-SHELL", "curl  x")),
    ],
)
def test_health_checks(text: str, test: tuple[str, ...]) -> None:
    found = config(f"FROM image\n{text}\n").healthcheck
    assert found is not None
    assert found.test == test


def test_commands_without_words_are_the_shell_with_none() -> None:
    assert config("FROM image\nCMD\n").cmd == ("/bin/sh", "-c", "")
    assert config("FROM image\nENTRYPOINT\n").entrypoint == ("/bin/sh", "-c", "")
    assert config("FROM image\nCMD []\n").cmd == ()
    assert not config("FROM image\nENTRYPOINT []\n").entrypoint


@pytest.mark.parametrize(
    ("text", "cmd"),
    [
        ('["\\ud800"]', ("\ufffd",)),
        ('["\\ud83d\\ude00 \\\\ud800"]', ("\U0001f600 \\ud800",)),
        ("[NaN]", ("/bin/sh", "-c", "[NaN]")),
        ("[" * 100_000, ("/bin/sh", "-c", "[" * 100_000)),
    ],
)
def test_json_is_read_as_go_reads_it(text: str, cmd: tuple[str, ...]) -> None:
    assert config(f"FROM image\nCMD {text}\n").cmd == cmd


# Refused before anything runs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COPY --chmod=64a a /", "not a mode: 64a"),
        ("COPY --chmod=10000 a /", "not a mode: 10000"),
        ("COPY --chmod=u+q a /", "not a mode: u+q"),
        ("ADD --chmod=888 a /", "not a mode: 888"),
        (f"ADD --checksum=sha256:{'0' * 64} a /", "checksum needs exactly one source"),
        ("ADD --checksum=s https://x/y /", "not a checksum: s"),
        ("ADD --checksum=sha256:00 https://x/y /", "not a checksum: sha256:00"),
        ("COPY --checksum=sha256:00 a /", "unknown flag of COPY: --checksum"),
        ("COPY https://x/y /", "COPY does not fetch: https://x/y"),
        ("COPY git@host:repo.git /", "COPY does not fetch: git@host:repo.git"),
        ("COPY x <<EOF\nEOF", "COPY cannot have a heredoc as its destination: <<EOF"),
        ("VOLUME []", "VOLUME needs an argument"),
        ('VOLUME [""]', "VOLUME path is empty"),
        ('EXPOSE ["80"]', "invalid port: [80]"),
        ("EXPOSE 80/icmp", "invalid port: 80/icmp"),
        ("EXPOSE 90-80", "invalid port: 90-80"),
        ("EXPOSE 65536", "invalid port: 65536"),
        ("EXPOSE 99999999999999999999", "invalid port"),
        ("EXPOSE host:80:80", "invalid IP address in a port: host:80:80"),
        ("EXPOSE 1-2:3-5", "invalid port: 1-2:3-5"),
        ("STOPSIGNAL SIGFOO", "invalid signal: SIGFOO"),
        ("STOPSIGNAL 0", "invalid signal: 0"),
        ("STOPSIGNAL RTMIN+16", "invalid signal: RTMIN+16"),
        ("ARG ${FROM_BASE}=x", "invalid ARG name: '1'"),
        ("RUN --mount=type=secret x", "secret mount has neither id nor target"),
        ("RUN --mount=type=bind,target=/ x", "mount cannot have the target /"),
        ("RUN --device=/dev/x x", "RUN --device=/dev/x is not allowed"),
        ("RUN --network=host x", "RUN --network=host is not allowed"),
        ("RUN --security=insecure x", "RUN --security=insecure is not allowed"),
    ],
)
def test_what_cannot_be_done_is_refused_by_the_compiler(text: str, message: str) -> None:
    assert refused(f"FROM image\n{text}\n").startswith(f"f:2: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM --platform=x image\n", "not a platform"),
        ("FROM --platform=$TYPO image\n", "--platform is empty: $TYPO"),
        ("FROM --platform=a/b/c/d image\n", "not a platform"),
        ("FROM --platform=linux/foo image\n", "unknown platform: linux/foo"),
        ("FROM --platform=linus/amd64 scratch\n", "unknown platform: linus/amd64"),
        ("FROM scratch AS 9x\n", "invalid stage name: 9x"),
    ],
)
def test_a_from_that_cannot_be_done_is_refused(text: str, message: str) -> None:
    assert refused(text).startswith(f"f:1: {message}")


@pytest.mark.parametrize("signal", ["sigterm", "TERM", "term", "rtmin", "SIGRTMIN+3", "rtmax-2", "15", "SIGRTMAX-14"])
def test_signals(signal: str) -> None:
    assert config(f"FROM image\nSTOPSIGNAL {signal}\n").stop_signal == signal


@pytest.mark.parametrize("mode", ["0755", "7", "01777", "u=rwX,go=", "a+x", "+x", "u=g", "ug+s,o-rwx"])
def test_modes(mode: str) -> None:
    assert steps(f"FROM image\nCOPY --chmod={mode} a /\n", Copy)[0].chmod == mode


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        ("0", ("0/tcp",)),
        ("80 443/tcp 53/udp", ("443/tcp", "53/udp", "80/tcp")),
        ("1-3/UDP", ("1/udp", "2/udp", "3/udp")),
        ("127.0.0.1:80:81", ("81/tcp",)),
        ("[::1]:80:81/sctp", ("81/sctp",)),
        ("1-9:5", ("5/tcp",)),
        ("$UNSET", ()),
    ],
)
def test_ports(words: str, ports: tuple[str, ...]) -> None:
    assert config(f"FROM image\nEXPOSE {words}\n").exposed_ports == ports


def test_permissions_reach_the_step() -> None:
    options = replace(OPTIONS, permissions=Permissions(all_devices=True, host_network=True, insecure=True))
    text = "FROM image\nRUN --device=/dev/x --network=host --security=insecure a\n"
    (run,) = steps(text, Run, options)
    assert (run.options.devices, run.options.network, run.options.cap_add) == (("/dev/x",), "host", ("ALL",))


# Mounts


@pytest.mark.parametrize(
    ("mount", "target"),
    [
        ("type=bind", "/srv"),
        ("type=bind,from=image,source=/x", "/srv"),
        ("type=cache", "/srv"),
        ("type=tmpfs", "/srv"),
        ("type=cache,target=rel", "/srv/rel"),
        ("type=cache,src=,target=/c", "/c"),
        ("type=secret,id=a/b", "/run/secrets/b"),
        ("type=secret,target=/x/s", "/x/s"),
        ("type=secret,target=s", "/srv/s"),
        ("type=bind,target=/c,U", "/c"),
        ("type=bind,target=/c,rw=true,z", "/c"),
    ],
)
def test_targets_of_mounts(mount: str, target: str) -> None:
    (run,) = steps(f"FROM image\nRUN --mount={mount} x\n", Run)
    assert run.mounts[0].target == target


def test_a_secret_is_called_like_the_last_part_of_its_target() -> None:
    (run,) = steps("FROM image\nRUN --mount=type=secret,target=/x/s --mount=type=secret,env=V,id=e x\n", Run)
    assert [(mount.id, mount.env) for mount in run.mounts] == [("s", None), ("e", "V")]


# Long and deep


LONG = {
    "ports": "FROM image\nEXPOSE 1-65535 1-65535/udp\n",
    "variables": "FROM image\n" + "".join(f"ENV V{i}=${{V{i // 2}}}x\n" for i in range(5000)),
    "labels": "FROM image\nLABEL " + " ".join(f"l{i}=v" for i in range(20_000)) + "\n",
    "line": "FROM image\nENV A=" + "a$PATH" * 150_000 + "\n",
    "quoted line": 'FROM image\nENV A="' + "b \\\" '" * 150_000 + '"\n',
    "words": "FROM image\nCOPY " + "a " * 100_000 + "/\n",
    "heredoc": "FROM image\nCOPY <<EOF /x\n" + "line $PATH \\d 'x'\n" * 40_000 + "EOF\n",
    "stars": "FROM image\nENV V="
    + "a" * 2000
    + "\nENV X=${V%%*a*a*a*a*a*a*a*a*ab} Y=${V##*a*a*a*a*a*b*} Z=${V//*a*a*a*b/}\n",
    "nested words": "FROM image\nENV A=" + "${X:-" * 20_000 + "y" + "}" * 20_000 + "\n",
    "nested quotes": "FROM image\nENV A=" + '${X:-"' * 5000 + '"}' * 5000 + "\n",
    "stages": "FROM image AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\n" for i in range(500)),
    "copies": "FROM image AS s0\n" + "".join(f"FROM scratch AS s{i + 1}\nCOPY --from=s{i} / /\n" for i in range(500)),
    "mounts": "FROM image AS s0\n"
    + "".join(f"FROM scratch AS s{i + 1}\nRUN --mount=from=s{i},target=/x true\n" for i in range(500)),
    "spaces": "FROM image\nRUN a" + " " * 200_000 + "b\nENV A" + " " * 200_000 + "b\n",
    "backslashes": "FROM image\nRUN " + "\\ " * 100_000 + "\n",
    "continuations": "FROM image\nRUN a " + "\\\n b " * 20_000 + "\n",
    "array": "FROM image\nRUN " + "[" * 200_000 + "\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_long_and_deep_files_take_no_longer_than_their_length(text: str) -> None:
    compiled(text)
    check(parse(SourceText.of(text, "f")), Facts(platform=AMD64, config_of=lambda name: base(name, AMD64)))


def test_a_chain_of_stages_by_variables_ends_in_an_error() -> None:
    chain = "".join(f"FROM scratch AS s{i + 1}\nARG P=s\nCOPY --from=${{P}}{i} / /\n" for i in range(300))
    assert "stages stand on each other" in refused(f"FROM image AS s0\n{chain}")


VALUES = {"chown": "7:8", "chmod": "640", "checksum": f"sha256:{'0' * 64}", "exclude": "*.md"}


@pytest.mark.parametrize("name", COPY_FLAGS)
def test_a_flag_of_copy_sets_its_field(name: str) -> None:
    flag = COPY_FLAGS[name]
    words = [f"--{name}" if flag.kind == "switch" else f"--{name}={VALUES[name]}"]
    if flag.kind == "list":
        words.append(f"--{name}=second")
    keyword = flag.of[-1]
    source = "https://host/a" if keyword == "ADD" else "a"
    (step,) = steps(f"FROM scratch\n{keyword} {' '.join(words)} {source} /b", Copy)
    expected = {"text": VALUES.get(name), "switch": True, "list": (VALUES.get(name), "second")}[flag.kind]
    assert getattr(step, flag.field) == expected
    assert f"--{name}" in step.created_by
    for other in {"COPY", "ADD"} - set(flag.of):
        assert f"unknown flag of {other}: --{name}" in refused(f"FROM scratch\n{other} {words[0]} a /b")
