"""The rules for scripts: what each finds, and what it must not find."""

from __future__ import annotations

import pytest

from builda.cli.verbs.script import _complaint, _with_value
from builda.scriptlint.calls import Place, read_script
from builda.scriptlint.rules import Finding, find

CLEAN = "trap 'builda rm \"$c\"' EXIT\n"


def findings(text: str) -> list[Finding]:
    return find(read_script(text.encode(), _with_value()), _complaint)


def names(text: str) -> list[str]:
    return [finding.name for finding in findings(text)]


@pytest.mark.parametrize(
    "line",
    [
        "builda run $c true",
        "builda run ${c} true",
        "builda commit --squash $c x",
        "buildah rm $c",
        'cp file $m/etc "$m/x"',
        "rm -r $m",
        "if builda run $c true; then :; fi",
        "for i in 1 2; do builda run $c true; done",
        "f() { builda run $c true; }",
        "x=$(builda run $c cat /x)",
        "echo y | builda run $c cat",
        "builda run $c --script - << 'END'\ntrue\nEND",
    ],
)
def test_containers_and_mount_points_must_be_quoted(line: str) -> None:
    text = f'{CLEAN}c=$(builda from x)\nm="$(builda mount "$c")"\n{line}\nbuilda umount "$c"\n'
    found = findings(text)
    assert [finding.name for finding in found] == ["UnquotedVariable"]
    assert found[0].at.line == 4


@pytest.mark.parametrize(
    "line",
    [
        'builda run "$c" true',
        "n=$c",
        "builda rm $(builda containers -q)",
        "builda bud $options .",
        "[[ $c ]] && echo yes",
        "echo '$c'",
        "builda run \"$c\" -- sh -c 'echo $c'",
        "cat << END\n$c\nEND",
        'builda run "${c}" true $# $?',
    ],
)
def test_what_is_quoted_or_meant_to_be_split_is_no_fault(line: str) -> None:
    assert names(f"{CLEAN}c=$(builda from x)\n{line}\n") == []


@pytest.mark.parametrize(
    "trap",
    [
        "trap 'builda rm \"$c\"' EXIT",
        'trap "builda rm -a" EXIT',
        "clean() { set +e; buildah delete $c; }\ntrap clean EXIT",
        'trap \'builda umount "$c" || true; builda rm "$c" >/dev/null 2>&1 || true\' EXIT',
        'trap "$handler" EXIT',
        "trap 'builda prune -f' EXIT",
    ],
)
def test_a_trap_that_removes_is_enough(trap: str) -> None:
    assert "ContainerIsLeft" not in names(f"{trap}\nc=$(builda from x)\n")


@pytest.mark.parametrize("text", ["", "trap 'echo done' EXIT\n", "clean() { builda images; }\ntrap clean EXIT\n"])
def test_a_container_that_nothing_removes_is_told_once(text: str) -> None:
    assert names(f"{text}c=$(builda from x)\nd=$(builda from y)\n") == ["ContainerIsLeft"]


def test_a_session_removes_everything() -> None:
    text = '#!/usr/bin/env -S builda session bash\nc=$(builda from x)\nm=$(builda mount "$c")\n'
    assert names(text) == []


def test_a_mount_wants_an_unmount() -> None:
    handler = "trap 'builda prune -f' EXIT\n"
    assert names(f'{handler}c=$(builda from x)\nbuilda mount "$c"\n') == ["MountIsLeft"]
    assert names(f'{handler}c=$(builda from x)\nbuilda mount "$c"\nbuilda umount "$c"\n') == []
    assert names("builda mount\nbuilda mount --json\n") == []


@pytest.mark.parametrize(
    "line",
    [
        "builda bud --build-arg TOKEN=abc .",
        'builda bud --build-arg="NPM_TOKEN=$t" .',
        'builda config --env "DB_PASSWORD=x" "$c"',
        'builda run -e API_KEY=1 "$c" true',
        'builda login -u me --password "$PW" example.org',
        "builda login -p x example.org",
        "builda pull --creds me:x example.org/a",
        "builda add $c https://me:word@example.org/x",
    ],
)
def test_secrets_stand_in_no_argument(line: str) -> None:
    assert names(line) == ["SecretInArgument"]


@pytest.mark.parametrize(
    "line",
    [
        "builda bud --build-arg TOKEN .",
        "builda bud --build-arg KEYBOARD=de .",
        "builda bud --build-arg PUBLIC_KEY=abc --build-arg TOKEN_FILE=/x .",
        "builda bud --secret id=token,src=file .",
        'echo "$PW" | builda login -u me --password-stdin example.org',
        "builda login example.org",
        "echo --password x",
        "builda config --env TOKEN= c",
    ],
)
def test_what_is_no_secret(line: str) -> None:
    assert names(line) == []


@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        ("builda comit x", "UnknownCommand", "unknown command: comit"),
        ("builda manifest creat x", "UnknownCommand", "unknown command: manifest creat"),
        ("builda commit --squas c x", "UnknownOption", "unknown flag: --squas"),
        ("builda --nope images", "UnknownOption", "unknown flag: --nope"),
        ("builda bud --tag", "UnknownOption", "flag needs an argument: --tag"),
        ("/usr/bin/buildah --cpu-profile=x images", "RefusedOption", "--cpu-profile is not supported"),
        ('builda bud --squas "${args[@]}" .', "UnknownOption", "unknown flag: --squas"),
    ],
)
def test_command_lines_that_builda_refuses(line: str, name: str, said: str) -> None:
    found = findings(line)
    assert [finding.name for finding in found] == [name]
    assert said in found[0].message


@pytest.mark.parametrize(
    "line",
    [
        'builda "$verb" --nope',
        'builda bud "${args[@]}" --whatever',
        'builda bud "$@"',
        "builda $options images",
        "builda",
        "builda --help",
        "builda image",
        "builda run c ls --nope",
        "echo builda comit",
        "# builda comit",
    ],
)
def test_what_only_the_shell_knows_is_no_fault(line: str) -> None:
    assert names(line) == []


def test_no_bash_is_said() -> None:
    assert "NotUnderstood" in names("if then fi\n")
    assert "NotUnderstood" in names("echo 'never closed\n")
    assert names("") == []


@pytest.mark.parametrize("text", [b"\xff\xfe builda comit\n", b"\0builda", b"$(" * 3000, b"{" * 20000, b"'" * 9999])
def test_hostile_scripts_end(text: bytes) -> None:
    find(read_script(text), _complaint)


def test_a_finding_stands_where_its_word_does() -> None:
    found = findings("c=$(builda from x)\n\n  builda run \\\n    $c true\n" + CLEAN)
    assert [finding.at for finding in found] == [Place(4, 5)]


def test_global_options_do_not_hide_the_verb() -> None:
    text = b"builda --root /x --log-level=debug from y\nbuilda --events 3 --debug rm z\nbuilda $x from\necho from\n"
    assert [call.verb for call in read_script(text, _with_value()).calls] == ["from", "rm", None, None]
