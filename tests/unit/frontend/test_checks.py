"""Each build check fires on what it is for, at its line, and on nothing else."""

from __future__ import annotations

import pytest

from builda.frontend.checks import check, settings_of
from builda.frontend.parse import parse
from builda.frontend.source import SourceText


def found(text: str, **options: object) -> list[tuple[str, int]]:
    parsed = parse(SourceText.of(text, "f"))
    return [(finding.check, finding.at.line) for finding in check(parsed, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("FROM a AS Build\n", "StageNameCasing", 1),
        ("FROM a as b\n", "FromAsCasing", 1),
        ("FROM a\nRUN x \\\n\n y\n", "NoEmptyContinuation", 3),
        ("FROM a\nrun x\n", "ConsistentInstructionCasing", 2),
        ("FROM a AS b\nFROM c AS b\n", "DuplicateStageName", 2),
        ("FROM a AS scratch\n", "ReservedStageName", 1),
        ("FROM a\nCMD echo hi\n", "JSONArgsRecommended", 2),
        ("FROM a\nMAINTAINER me\n", "MaintainerDeprecated", 2),
        ("FROM $X\n", "UndefinedArgInFrom", 1),
        ("FROM scratch\nENV a=$b\n", "UndefinedVar", 2),
        ("FROM a\nWORKDIR srv\n", "WorkdirRelativePath", 2),
        ('FROM a\nCMD ["a"]\nCMD ["b"]\n', "MultipleInstructionsDisallowed", 2),
        ("FROM a\nENV a b\n", "LegacyKeyValueFormat", 2),
        ("FROM --platform=$TARGETPLATFORM a\n", "RedundantTargetPlatform", 1),
        ("FROM --platform=linux/amd64 a\n", "FromPlatformFlagConstDisallowed", 1),
        ("FROM a\nARG DB_PASSWORD\n", "SecretsUsedInArgOrEnv", 2),
        ("ARG V\nFROM a:$V\n", "InvalidDefaultArgInFrom", 2),
        ("FROM a\nEXPOSE 80/TCP\n", "ExposeProtoCasing", 2),
        ("FROM a\nEXPOSE 80:80\n", "ExposeInvalidFormat", 2),
    ],
)
def test_check_fires_at_its_line(text: str, name: str, line: int) -> None:
    assert found(text) == [(name, line)]


def test_an_ignored_source_is_found() -> None:
    text = "FROM a\nCOPY secret.txt kept.txt /x/\n"
    assert found(text, ignored=lambda path: path == "secret.txt") == [("CopyIgnoredFile", 2)]


@pytest.mark.parametrize(
    "text",
    [
        "FROM scratch\nARG b\nENV a=$b c=${d:-x} e='$f' g=\\$h\n",
        "FROM a AS b\nFROM b\nWORKDIR /x\nWORKDIR y\n",
        "FROM a\nENV SIGNING_KEY_ID=1 PUBLIC_KEY=x\n",
        "ARG V=1\nFROM a:$V\nUSER $unknown\n",
    ],
)
def test_nothing_to_find(text: str) -> None:
    assert found(text) == []


def test_the_directive_skips_checks() -> None:
    assert found("# check=skip=MaintainerDeprecated\nFROM a\nMAINTAINER me\n") == []
    assert found("# check=skip=all\nFROM a as b\nMAINTAINER me\n") == []
    assert settings_of(parse(SourceText.of("# check=error=true;skip=X\nFROM a\n", "f"))).error
