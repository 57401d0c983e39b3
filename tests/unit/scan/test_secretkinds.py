"""The table of secrets: each row finds its own examples, and nothing in what only looks alike."""

from __future__ import annotations

import io
import re

import pytest

from builda.oci.config import ImageConfig
from builda.oci.descriptor import Platform
from builda.scan.filescan import secrets_in
from builda.scan.imagescan import in_documents
from builda.scan.secretkinds import RULES, VARIABLE, Rule


def place_for(rule: Rule) -> str:
    """A path at which files are looked at for this rule."""
    if not rule.paths:
        return "/etc/app.conf"
    return f"/root{rule.paths[0]}" if rule.paths[0].startswith(("/.", "/_")) else f"/x{rule.paths[0]}"


def found(data: bytes, path: str) -> set[str]:
    return {hit.rule.name for hit in secrets_in(io.BytesIO(b"first line\n" + data + b"\nlast line\n"), path)}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_finds_its_examples_only(rule: Rule) -> None:
    assert rule.good
    for first, second in rule.good:
        assert rule.name in found(first + second, place_for(rule))
    for text in rule.bad:
        assert found(text, place_for(rule)) == set()


def test_names_are_used_once_and_patterns_match_something() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z-]+", name) for name in names)
    assert all(re.match(rule.pattern, b"") is None for rule in RULES)


@pytest.mark.parametrize(("first", "second"), VARIABLE.good)
def test_a_variable_counts_by_its_name(first: bytes, second: bytes) -> None:
    assert [finding.rule for finding in in_documents(history((first + second).decode()), {})] == ["variable"]


@pytest.mark.parametrize("text", VARIABLE.bad)
def test_a_variable_that_holds_no_secret(text: bytes) -> None:
    assert list(in_documents(history(text.decode()), {})) == []


def history(created_by: str) -> ImageConfig:
    from builda.oci.config import History

    return ImageConfig(platform=Platform.parse("linux/amd64"), history=(History(created_by=created_by),))
