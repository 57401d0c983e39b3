"""Each build check fires on what it is for, at its line, and not on what only looks like it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builda.errors import BuildaError
from builda.frontend.check_settings import ARGUMENT, settings_of
from builda.frontend.checks import Facts, check
from builda.frontend.parse import parse
from builda.frontend.sourcetext import SourceText
from builda.oci.config import empty_config
from builda.oci.descriptor import Platform

AMD64 = Platform.parse("linux/amd64")
ARM64 = Platform.parse("linux/arm64")
FACTS = Facts(
    platform=AMD64,
    build_platform=AMD64,
    ignored=lambda path: path == "secret.txt",
    config_of={"local": replace(empty_config(AMD64), env=(("SET", "1"),)), "arm": empty_config(ARM64)}.get,
)
DESCRIBED = "# check=experimental=all\n"


def found(text: str, facts: Facts = FACTS) -> list[tuple[str, int]]:
    parsed = parse(SourceText.of(text, "f"))
    return [(finding.check, finding.at.line) for finding in check(parsed, facts)]


@pytest.mark.parametrize(
    ("name", "wrong", "line", "right"),
    [
        ("StageNameCasing", "FROM a AS Build\n", 1, "FROM a AS build-2\n"),
        ("FromAsCasing", "FROM a as b\n", 1, "from a as b\n"),
        ("NoEmptyContinuation", "FROM a\nRUN x \\\n\n y \\\n\n z\n", 6, "FROM a\nRUN x \\\n# why\n y\n"),
        ("ConsistentInstructionCasing", "FROM a\nrun x\n", 2, "from a\nrun x\n"),
        ("ConsistentInstructionCasing", "FROM a\nRUN x\nRun y\n", 3, "FROM a\nRUN x\n\nRUN y\n"),
        ("DuplicateStageName", "FROM a AS b\nFROM c AS b\n", 2, "FROM a AS b\nFROM c AS d\n"),
        ("ReservedStageName", "FROM a AS scratch\n", 1, "FROM scratch AS a\n"),
        ("ReservedStageName", "FROM a AS context\n", 1, "FROM a AS contexts\n"),
        ("JSONArgsRecommended", "FROM a\nCMD echo hi\n", 2, 'FROM a\nCMD ["echo", "hi"]\n'),
        ("JSONArgsRecommended", "FROM a\nENTRYPOINT run\n", 2, 'FROM a\nENTRYPOINT ["run"]\nRUN x y\n'),
        ("MaintainerDeprecated", "FROM a\nMAINTAINER me\n", 2, "FROM a\nLABEL maintainer=me\n"),
        ("UndefinedArgInFrom", "FROM $X\n", 1, "ARG X=a\nFROM $X\n"),
        ("UndefinedArgInFrom", "FROM --platform=$P a\n", 1, "FROM --platform=$BUILDPLATFORM a\n"),
        ("UndefinedVar", "FROM scratch\nENV a=$b\n", 2, "FROM scratch\nARG b\nENV a=$b e='$f' g=\\$h\n"),
        ("UndefinedVar", "FROM local\nUSER $UNSET\n", 2, "FROM local\nUSER $SET\n"),
        ("UndefinedVar", "FROM local AS x\nFROM x\nUSER $UNSET\n", 3, "FROM unknown\nUSER $UNSET\n"),
        ("WorkdirRelativePath", "FROM a\nWORKDIR srv\n", 2, "FROM a AS b\nFROM b\nWORKDIR /x\nWORKDIR y\n"),
        (
            "MultipleInstructionsDisallowed",
            'FROM a\nCMD ["a"]\nCMD ["b"]\n',
            2,
            'FROM a\nCMD ["a"]\nFROM b\nCMD ["b"]\n',
        ),
        (
            "MultipleInstructionsDisallowed",
            "FROM a\nHEALTHCHECK CMD x\nHEALTHCHECK NONE\n",
            2,
            "FROM a\nHEALTHCHECK NONE\n",
        ),
        ("LegacyKeyValueFormat", "FROM a\nENV a b\n", 2, "FROM a\nENV a=b\n"),
        ("LegacyKeyValueFormat", "FROM a\nLABEL a b\n", 2, 'FROM a\nLABEL a="b c"\n'),
        ("InvalidBaseImagePlatform", "FROM arm\n", 1, "FROM local\n"),
        ("InvalidBaseImagePlatform", "ARG B=arm\nFROM $B\n", 2, "ARG B=local\nFROM $B\n"),
        ("RedundantTargetPlatform", "FROM --platform=$TARGETPLATFORM a\n", 1, "FROM --platform=$BUILDPLATFORM a\n"),
        ("FromPlatformFlagConstDisallowed", "FROM --platform=linux/amd64 a\n", 1, "ARG P\nFROM --platform=$P a\n"),
        ("SecretsUsedInArgOrEnv", "FROM a\nARG DB_PASSWORD\n", 2, "FROM a\nARG DB_NAME\n"),
        (
            "SecretsUsedInArgOrEnv",
            "FROM a\nENV API_TOKEN=x\n",
            2,
            "FROM a\nENV POSTGRES_PASSWORD_FILE=1 PUBLIC_KEY=x AUTH_VERSION=2 republic_keys=1\n",
        ),
        ("InvalidDefaultArgInFrom", "ARG V\nFROM a:$V\n", 2, "ARG V=1\nFROM a:$V\n"),
        ("CopyIgnoredFile", "FROM a\nCOPY secret.txt kept.txt /x/\n", 2, "FROM a AS b\nCOPY --from=b secret.txt /\n"),
        (
            "InvalidDefinitionDescription",
            f"{DESCRIBED}# what it is\nFROM a AS b\n",
            3,
            f"{DESCRIBED}# b is it\nFROM a AS b\n",
        ),
        (
            "InvalidDefinitionDescription",
            f"{DESCRIBED}FROM a\n# why\nARG V\n",
            4,
            f"{DESCRIBED}# why\n\nARG V=1\nFROM a:$V\n",
        ),
        ("ExposeProtoCasing", "FROM a\nEXPOSE 80/TCP\n", 2, "FROM a\nEXPOSE 80/tcp 81\n"),
        ("ExposeInvalidFormat", "FROM a\nEXPOSE 80:80\n", 2, "FROM a\nEXPOSE 80-90\n"),
    ],
)
def test_a_check_fires_at_its_line_and_on_nothing_else(name: str, wrong: str, line: int, right: str) -> None:
    assert found(wrong) == [(name, line)]
    assert name not in [check for check, _ in found(right)]


def test_a_description_is_asked_for_only_when_the_experiment_is_on() -> None:
    text = "# about\nFROM a AS b\n"
    assert found(text) == []
    on = "InvalidDefinitionDescription"
    assert found(text, replace(FACTS, build_args={ARGUMENT: f"experimental={on}"})) == [(on, 2)]


def test_an_undefined_variable_comes_with_the_nearest() -> None:
    parsed = parse(SourceText.of("FROM scratch\nARG VERSION\nLABEL v=$VERSOIN\n", "f"))
    assert [finding.message for finding in check(parsed)] == [
        "variable is never defined: $VERSOIN (did you mean $VERSION?)"
    ]


def test_build_args_decide_what_a_base_is() -> None:
    assert found("ARG B=local\nFROM $B\n", replace(FACTS, build_args={"B": "arm"})) == [("InvalidBaseImagePlatform", 2)]


@pytest.mark.parametrize("platform", ["linux/arm64", "$WANTED"])
def test_a_stage_may_ask_for_the_platform_of_its_base(platform: str) -> None:
    names = [name for name, _ in found(f"ARG WANTED=linux/arm64\nFROM --platform={platform} arm\n")]
    assert "InvalidBaseImagePlatform" not in names


def test_the_directive_skips_checks() -> None:
    assert found("# check=skip=MaintainerDeprecated\nFROM a\nMAINTAINER me\n") == []
    assert found("# check=skip=all\nFROM a as b\nMAINTAINER me\n") == []
    assert settings_of(parse(SourceText.of("# check=error=true;skip=X\nFROM a\n", "f")), {}).error


def test_the_build_arg_takes_the_place_of_the_directive() -> None:
    text = "# check=skip=all;error=true\nFROM a as b\nMAINTAINER me\n"
    args = {ARGUMENT: "skip=FromAsCasing"}
    assert found(text, replace(FACTS, build_args=args)) == [("MaintainerDeprecated", 3)]
    assert not settings_of(parse(SourceText.of(text, "f")), args).error


@pytest.mark.parametrize("value", ["skp=X", "error=perhaps"])
def test_a_setting_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(BuildaError):
        found(f"# check={value}\nFROM a\n")
    with pytest.raises(BuildaError, match=ARGUMENT):
        found("FROM a\n", replace(FACTS, build_args={ARGUMENT: value}))


@pytest.mark.parametrize(
    "text",
    [
        'ARG V="1.0"\nFROM b:${V}\n',
        "ARG V='1.0'\nFROM b:$V\n",
        "ARG A=1\nARG B=b:${A}\nFROM ${B}\n",
        "ARG A\nARG B=${A:-b}\nFROM $B\n",
        "ARG A\nARG B=bb\nFROM ${A:?unset}/$B\n",
        "ARG A=${B:?unset}\nFROM b:$A\n",
        "FROM --platform=$BUILDPLATFORM b\n",
        "FROM b AS x\nFROM x\nENV A=$UNKNOWN_BASE\n",
    ],
)
def test_defaults_are_expanded_in_order_and_without_their_quotes(text: str) -> None:
    assert found(f"# check=error=true\n{text}") == []


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("FROM scratch\nENV A=$TARGETARCH\n", "UndefinedVar", 2),
        ("FROM scratch\nCOPY --chown=$TYPO a /\n", "UndefinedVar", 2),
        ("FROM scratch\nCOPY <<EOF /\n$TYPO\nEOF\n", "UndefinedVar", 2),
        ("FROM scratch\nARG A=$TYPO\n", "UndefinedVar", 2),
        ("FROM scratch\nENV A=$HOME\n", "UndefinedVar", 2),
        ("FROM scratch\nENV A=${X:-d}\n", "UndefinedVar", 2),
        ("FROM scratch\nRUN --mount=type=cache,target=$TYPO/x a\n", "UndefinedVar", 2),
        ("ARG B=local\nFROM $B\nUSER $TYPO\n", "UndefinedVar", 3),
        ("FROM scratch\nENV X=rel\nWORKDIR $X\n", "WorkdirRelativePath", 3),
        ("from a As b\n", "FromAsCasing", 1),
    ],
)
def test_what_buildkit_tells_too(text: str, name: str, line: int) -> None:
    assert found(text) == [(name, line)]


@pytest.mark.parametrize(
    "text",
    [
        "FROM scratch\nARG X\nENV A=$X\n",
        'FROM scratch\nENV X=/abs\nWORKDIR "${X}"\nWORKDIR rel\n',
        "FROM unknown\nWORKDIR $SET_BY_THE_BASE\nWORKDIR rel\n",
        "FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR y\n",
        'FROM a\nSHELL ["/bin/bash", "-c"]\nCMD run me\n',
        "FROM --platform=linux/arm64 arm AS for-arm64\n",
        "ARG DB_PASSWORD\nFROM a\n",
        "FROM a\nENV POSTGRES_PASSWORD_FILE=/x SECRET_FILE=/y FILE_KEY=1 AUTH_VERSION=2\n",
        "arg x\nFROM a\nRUN x\n",
        "FROM local AS one\nENV MINE=1\nFROM one\nUSER $MINE$SET\n",
    ],
)
def test_what_buildkit_does_not_tell_either(text: str) -> None:
    assert found(text) == []


def test_a_second_relative_workdir_is_not_told() -> None:
    assert found("FROM a\nWORKDIR b\nWORKDIR c\n") == [("WorkdirRelativePath", 2)]


@pytest.mark.parametrize(
    "name", ["KEY_ID", "KEY_NAME", "KEY_PATH", "AWS_ACCESS_KEY_ID", "PUBLICKEY_TOKEN", "X_KEYRING_KEY"]
)
def test_names_like_secrets(name: str) -> None:
    assert found(f"FROM a\nENV {name}=x\n") == [("SecretsUsedInArgOrEnv", 2)]


@pytest.mark.parametrize(
    ("comment", "kept"),
    [
        ("# check=skip=MaintainerDeprecated", False),
        ("# check=skip=all", False),
        ("#check = skip=Other,MaintainerDeprecated why not", False),
        ("# check=skip=MaintainerDeprecated\n# more", False),
        ("# check=skip=MaintainerDeprecated\n\n# more", False),
        ("# check=skip=Other", True),
        ("# check=skp=MaintainerDeprecated", True),
        ("# check=skip=MaintainerDeprecated\n#", True),
        ("# check=skip=MaintainerDeprecated\nRUN x", True),
    ],
)
def test_a_comment_above_an_instruction_skips_checks_of_it(comment: str, kept: bool) -> None:
    text = f"FROM a\n{comment}\nMAINTAINER me\nMAINTAINER you\n"
    assert [name for name, _ in found(text)] == ["MaintainerDeprecated"] * (2 if kept else 1)


def test_an_empty_continuation_is_told_once_for_its_instruction() -> None:
    assert found("FROM a\nRUN x \\\n\n\n y \\\n\n z\nRUN a\n") == [("NoEmptyContinuation", 7)]


@pytest.mark.parametrize(
    "text", ["FROM \x85\n", "FROM a AS b\n# \x85\nFROM \u2003\n", "FROM a\nEXPOSE \u00a0\n", "FROM a\nENV \x1c=1\n"]
)
def test_odd_white_space_is_no_trouble(text: str) -> None:
    assert "UndefinedVar" not in dict(found(f"{DESCRIBED}{text}"))
