"""commit --change: instructions as edits of a configuration."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from builda.errors import BuildaError, InvalidValue, Unsupported
from builda.frontend.change import edits_of
from builda.oci.config import Healthcheck, ImageConfig
from builda.oci.descriptor import Platform
from builda.oci.edits import apply_all

EMPTY = ImageConfig(platform=Platform(os="linux", architecture="amd64"))


def change(config: ImageConfig, *texts: str) -> ImageConfig:
    return apply_all(config, edits_of(config, texts))


def test_commands_are_json_or_for_the_shell() -> None:
    assert change(EMPTY, 'CMD ["a", "b c"]').cmd == ("a", "b c")
    assert change(EMPTY, "CMD a b").cmd == ("/bin/sh", "-c", "a b")
    assert change(EMPTY, "cmd [ -f x ] && y").cmd == ("/bin/sh", "-c", "[ -f x ] && y")


def test_an_entrypoint_resets_the_command() -> None:
    changed = change(change(EMPTY, "CMD a"), 'ENTRYPOINT ["e"]')
    assert changed.entrypoint == ("e",)
    assert changed.cmd is None


@pytest.mark.parametrize(
    ("text", "env"),
    [
        ("ENV A=1", (("A", "1"),)),
        ("ENV A=1 B='two words'", (("A", "1"), ("B", "two words"))),
        ("ENV greeting hello  world", (("greeting", "hello  world"),)),
    ],
)
def test_env(text: str, env: tuple[tuple[str, str], ...]) -> None:
    assert change(EMPTY, text).env == env


def test_the_other_instructions() -> None:
    config = EMPTY
    for text in (
        "EXPOSE 80 53/udp",
        'LABEL a="b c"',
        "MAINTAINER A B",
        "ONBUILD RUN make",
        'SHELL ["/bin/bash", "-c"]',
        "STOPSIGNAL SIGINT",
        "USER bob:users",
        'VOLUME ["/data"]',
        "WORKDIR /srv",
        "WORKDIR app",
        "HEALTHCHECK --interval=1m30s --retries=5 CMD curl -f localhost",
    ):
        config = change(config, text)
    assert config.exposed_ports == ("53/udp", "80/tcp")
    assert config.labels == {"a": "b c"}
    assert (config.author, config.onbuild, config.shell) == ("A B", ("RUN make",), ("/bin/bash", "-c"))
    assert (config.stop_signal, config.user, config.volumes) == ("SIGINT", "bob:users", ("/data",))
    assert config.working_dir == "/srv/app"
    assert config.healthcheck == Healthcheck(test=("CMD-SHELL", "curl -f localhost"), interval=90 * 10**9, retries=5)


@pytest.mark.parametrize("text", ["RUN make", "COPY a b", "FROM x", "nonsense"])
def test_what_touches_files_is_refused(text: str) -> None:
    with pytest.raises(Unsupported, match="not an instruction that changes the configuration"):
        change(EMPTY, text)


@pytest.mark.parametrize(
    "text",
    [
        "ENV",
        "ENV A=1 B",
        "SHELL bash",
        "HEALTHCHECK --bad=1 CMD x",
        "HEALTHCHECK --interval=fast CMD x",
        "LABEL 'a",
        "STOPSIGNAL SIGFOO",
        "EXPOSE x",
        "ENV A=${B:?no}",
    ],
)
def test_malformed_instructions_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        change(EMPTY, text)


def test_words_mean_what_they_do_in_a_containerfile() -> None:
    config = replace(EMPTY, env=(("HOME", "/root"),), working_dir="/srv", shell=("/bin/bash", "-c"))
    changed = change(config, "ENV A=$HOME/a", "ENV B=$A/b", "WORKDIR sub", "CMD echo $A", "HEALTHCHECK NONE")
    assert changed.env == (("HOME", "/root"), ("A", "/root/a"), ("B", "/root/a/b"))
    assert (changed.working_dir, changed.cmd) == ("/srv/sub", ("/bin/bash", "-c", "echo $A"))
    assert changed.healthcheck == Healthcheck(test=("NONE",))


def test_triggers_stay_and_do_nothing() -> None:
    assert change(replace(EMPTY, onbuild=("RUN make",)), "USER bob").onbuild == ("RUN make",)
    assert change(replace(EMPTY, onbuild=("RUN make",)), "ONBUILD USER x").onbuild == ("RUN make", "USER x")


def test_an_error_names_the_option() -> None:
    with pytest.raises(InvalidValue, match="--change: invalid --interval: fast"):
        change(EMPTY, "HEALTHCHECK --interval=fast CMD x")


@pytest.mark.parametrize("text", ["CMD " + "[" * 100_000, "ENV A=" + "${A:-" * 5000])
def test_deep_nesting_is_no_accident(text: str) -> None:
    with suppress(BuildaError):
        change(EMPTY, text)


@pytest.mark.parametrize("text", ["ENV a=1\nRUN true", "USER u\nCOPY f /f", "CMD x\nFROM other\nCMD y"])
def test_later_lines_of_a_text_are_no_way_in_for_other_instructions(text: str) -> None:
    with pytest.raises((InvalidValue, Unsupported)):
        edits_of(EMPTY, (text,))
