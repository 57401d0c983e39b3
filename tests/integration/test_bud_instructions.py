"""What instructions do where BuildKit's reference says it and a build once did otherwise."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root


@pytest.fixture
def context(tmp_path: Path) -> Path:
    place = tmp_path / "c"
    (place / "d").mkdir(parents=True)
    (place / "f").write_text("in the context")
    (place / "d/g").write_text("below")
    return place


def build(builda: Builda, base: str, context: Path, text: str, *args: str, **environ: Any) -> str:
    """The standard output of a build."""
    (context / "Containerfile").write_text(text.replace("BASE", base))
    return builda.run("bud", "--no-cache", "-t", "made", *args, context, **environ).stdout


def test_a_mount_with_u_is_the_users_own_copy(builda: Builda, base: str, context: Path) -> None:
    said = build(
        builda,
        base,
        context,
        "FROM BASE\nUSER 77:88\n"
        "RUN --mount=type=bind,target=/x,U stat -c '%u:%g %n' /x /x/f /x/d/g; touch /x/new || echo read-only\n"
        "RUN --mount=type=bind,target=/x,U=true,rw touch /x/new && stat -c '%u %n' /x/new\n"
        "RUN --mount=type=bind,source=f,target=/y,U stat -c '%u:%g %n' /y\n"
        "RUN --mount=type=bind,from=BASE,source=/etc,target=/x,U stat -c '%u:%g %n' /x/passwd /etc/passwd\n",
    )
    for line in ("77:88 /x", "77:88 /x/f", "77:88 /x/d/g", "read-only", "77 /x/new", "77:88 /y", "77:88 /x/passwd"):
        assert f"\n{line}\n" in said
    assert "\n0:0 /etc/passwd\n" in said
    assert (context / "f").stat().st_uid == 0
    assert not (context / "new").exists()


def test_a_mount_without_target_is_the_working_directory(builda: Builda, base: str, context: Path) -> None:
    said = build(
        builda,
        base,
        context,
        "FROM BASE\nWORKDIR /w\nRUN --mount=type=bind cat f\nRUN --mount=type=cache touch kept\n"
        "RUN --mount=type=cache ls\nRUN ls | wc -l\n",
    )
    assert "in the context" in said
    assert "\nkept\n" in said
    assert "\n0\n" in said


def test_secrets_by_the_forms_of_buildah_and_buildx(builda: Builda, base: str, context: Path) -> None:
    (context / "env").write_text("from a file")
    text = "FROM BASE\nRUN --mount=type=secret,target=/run/secrets/s,required cat /run/secrets/s\n"
    values: dict[str, Any] = {"TOK": "from TOK", "s": "from s"}
    for item, value in (
        ("id=s,src=TOK,type=env", "from TOK"),
        ("type=env,id=s,source=TOK", "from TOK"),
        (f"id=s,src={context}/env,env=TOK", "from TOK"),
        (f"id=s,env=TOK,src={context}/env,type=file", "from a file"),
        (f"id=s,src={context}/env", "from a file"),
        ("id=s", "from s"),
        ("id=s,type=env", "from s"),
    ):
        assert f"\n{value}" in build(builda, base, context, text, "--secret", item, **values)
    for item, message in (
        ("id=s,type=env,src=NOT_SET", "variable of the secret s is not set: NOT_SET"),
        ("id=s,type=other", "secret has an unknown type other"),
        ("src=x", "secret has no id"),
        ("id=nothing", "no variable and no file is called like the secret: nothing"),
    ):
        assert message in builda.fails("bud", "--secret", item, context, **values)


def test_an_epoch_as_build_argument_is_the_time_of_the_image(builda: Builda, base: str, context: Path) -> None:
    text = "FROM BASE\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /epoch\n"
    for args, created in (
        (("--build-arg", "SOURCE_DATE_EPOCH=60"), "1970-01-01T00:01:00Z"),
        (("--build-arg", "SOURCE_DATE_EPOCH=60", "--source-date-epoch", "120"), "1970-01-01T00:02:00Z"),
        (("--build-arg", "SOURCE_DATE_EPOCH=60", "--timestamp", "180"), "1970-01-01T00:03:00Z"),
    ):
        build(builda, base, context, text, *args, SOURCE_DATE_EPOCH="240")
        assert json.loads(builda("inspect", "--type", "image", "made"))["OCIv1"]["created"] == created
    assert "not a number" in builda.fails("bud", "--build-arg", "SOURCE_DATE_EPOCH=x", context)


@pytest.mark.parametrize(
    ("args", "variable", "seen"),
    [
        (("--source-date-epoch", "60"), None, "60"),
        (("--source-date-epoch", "60"), "70", "60"),
        ((), "70", "70"),
        (("--build-arg", "SOURCE_DATE_EPOCH=80", "--source-date-epoch", "60"), "70", "80"),
        ((), None, ""),
    ],
)
def test_an_epoch_is_the_value_of_an_argument_of_its_name(
    builda: Builda, base: str, context: Path, args: tuple[str, ...], variable: str | None, seen: str
) -> None:
    text = "FROM BASE\nARG SOURCE_DATE_EPOCH\nRUN echo epoch=$SOURCE_DATE_EPOCH.\n"
    environ = {} if variable is None else {"SOURCE_DATE_EPOCH": variable}
    assert f"epoch={seen}.\n" in build(builda, base, context, text, "--no-cache", *args, **environ)


def test_workdir_needs_no_entry_of_its_user(builda: Builda, base: str, context: Path) -> None:
    text = (
        "FROM scratch AS made\nUSER root\nWORKDIR /root-made\nUSER ghost\nWORKDIR /ghost\n"
        "USER 7:ghosts\nWORKDIR /seven\nUSER 7:8\nWORKDIR /eight\n"
        "COPY --chown=root:root f /f\nCOPY --chown=9:root f /g\n"
        "FROM BASE\nUSER root\n{}RUN --mount=from=made,target=/m stat -c '%u:%g %n' /m/*\n"
    )
    for run in ("", "RUN true\n"):  # lists first, trees then
        said = build(builda, base, context, text.format(run))
        for line in ("0:0 /m/root-made", "0:0 /m/ghost", "7:0 /m/seven", "7:8 /m/eight", "0:0 /m/f", "9:0 /m/g"):
            assert f"\n{line}\n" in said
    assert "unknown user" in builda.fails("bud", "-f", write(context, f"FROM {base}\nUSER ghost\nRUN true\n"), context)


def write(context: Path, text: str) -> Path:
    (context / "other").write_text(text)
    return context / "other"


def test_heredocs_as_shells_and_buildkit_have_them(builda: Builda, base: str, context: Path) -> None:
    said = build(
        builda,
        base,
        context,
        "FROM BASE\nENV V=v\nRUN cat << EOF > /x\nblank $V\nEOF\nRUN cat <<\\EOF > /y\nraw $V\nEOF\n"
        'RUN <<E"O"F\necho quoted $V\nEOF\n'
        "COPY --from=BASE << A /etc/group /both/\n\\$V \\\\ \\n\nA\nRUN cat /x /y /both/A && ls /both\n"
        "RUN echo $((1 << 2)) two\\\\\nRUN echo last\n",
    )
    for line in ("blank v", "raw $V", "quoted v", "$V \\ n", "A", "group", "last"):
        assert f"\n{line}\n" in said
    assert "\n4 two\\" in said


def test_many_stages_ports_and_variables_build(builda: Builda, base: str, context: Path) -> None:
    chain = "".join(f"FROM s{i} AS s{i + 1}\nENV V{i}=1\n" for i in range(300))
    build(builda, base, context, f"FROM BASE AS s0\nEXPOSE 1-65535/udp\n{chain}LABEL last=1\n", "-q")
    config = json.loads(builda("inspect", "--type", "image", "made"))["OCIv1"]["config"]
    assert len(config["ExposedPorts"]) == 65535
    assert "V299=1" in config["Env"]


@pytest.mark.parametrize("layers", ["true", "false"])
def test_what_is_said_between_commands_reaches_them_and_the_image(
    builda: Builda, base: str, context: Path, layers: str
) -> None:
    text = """FROM BASE AS a
RUN true
ENV A=1
USER 5
RUN echo "$A of $(id -u)"
ENV B=2
FROM a
ENV C=$B
RUN echo "$A $B $C of $(id -u)"
USER 0
LABEL l=last
"""
    said = build(builda, base, context, text, f"--layers={layers}")
    assert {"1 of 5", "1 2 2 of 5"} <= {line.rpartition("] ")[2] for line in said.splitlines()}
    image = json.loads(builda("inspect", "--type", "image", "made"))["OCIv1"]
    assert {"A=1", "B=2", "C=2"} <= set(image["config"]["Env"])
    assert (image["config"]["User"], image["config"]["Labels"]["l"]) == ("0", "last")
    history = [entry.get("created_by", "") for entry in image["history"]]
    told = [line.rpartition("(nop) ")[2] for line in history if "(nop)" in line]
    assert told[-6:] == ["ENV A=1", "USER 5", "ENV B=2", "ENV C=2", "USER 0", "LABEL l=last"]


def test_the_platform_that_was_asked_for_is_that_of_the_image(builda: Builda, base: str, context: Path) -> None:
    build(builda, base, context, "FROM --platform=$BUILDPLATFORM BASE\nCOPY f /\n", "-q", "--platform", "linux/s390x")
    image = json.loads(builda("inspect", "--type", "image", "made"))["OCIv1"]
    assert (image["os"], image["architecture"]) == ("linux", "s390x")


def test_the_files_of_a_bound_context_are_roots(builda: Builda, base: str, context: Path) -> None:
    os.chown(context / "f", 1234, 4321)
    os.chown(context / "d", 1234, 0)
    (context / "d/large").write_bytes(b"x" * (8 << 20))
    os.chown(context / "d/large", 1234, 1234)
    (context / "l").symlink_to("f")
    os.chown(context / "l", 1234, 1234, follow_symlinks=False)
    said = build(
        builda,
        base,
        context,
        "FROM BASE\n"
        "RUN --mount=target=/ctx stat -c '%u:%g %n' /ctx /ctx/f /ctx/d /ctx/d/large /ctx/l; cat /ctx/f /ctx/d/g; "
        "cmp -n 10 /ctx/d/large /ctx/d/large && touch /ctx/new || echo read-only\n"
        "RUN --mount=source=f,target=/file stat -c '%u:%g %n' /file\n"
        "RUN --mount=source=d,target=/part,rw stat -c '%u:%g %n' /part/large && touch /part/new && echo written\n"
        "RUN --mount=type=bind,target=/c,from=other stat -c '%u:%g %n' /c/f\n",
        "--build-context",
        f"other={context}",
    )
    for line in ("/ctx", "/ctx/f", "/ctx/d", "/ctx/d/large", "/ctx/l", "/file", "/part/large", "/c/f"):
        assert f"\n0:0 {line}\n" in said
    assert "in the contextbelowread-only\n" in said
    assert "\nwritten\n" in said
    assert (context / "f").stat().st_uid == 1234
    assert not (context / "d/new").exists()
