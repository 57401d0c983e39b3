"""What people read acts on no terminal and repeats no password."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies

from builda.display import displayed, visible, without_passwords

ACTING = [
    *map(chr, range(9)),
    *map(chr, range(11, 32)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\U000e0041",
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, ä, 漢字, 👩‍🚀 and a\ttab", None),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b]52;c;cm0gLXJm\x1b\\", "\\x1b]52;c;cm0gLXJm\\x1b\\"),
        ("\x9b2J", "\\x9b2J"),
        ("\x9d0;title\x9c", "\\x9d0;title\\x9c"),
        ("\x90qsixel", "\\x90qsixel"),
        ("a\rb", "a\\x0db"),
        ("bell\x07 back\x08 del\x7f", "bell\\x07 back\\x08 del\\x7f"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\udcff not UTF-8", "\\xff not UTF-8"),
        ("half \ud800", "half \\ud800"),
        ("tag \U000e0041", "tag \\U000e0041"),
    ],
)
def test_what_acts_on_a_terminal_is_escaped(text: str, shown: str | None) -> None:
    assert visible(text) == (text if shown is None else shown)


@pytest.mark.parametrize("character", ACTING)
def test_no_acting_character_passes(character: str) -> None:
    assert character not in displayed(f"no such user: a{character}b")


@given(strategies.text(strategies.characters(categories=None)))
def test_every_text_can_be_written_and_is_safe(text: str) -> None:
    shown = displayed(text)
    shown.encode()
    assert not any(c in shown for c in ACTING)
    assert displayed(shown) == shown


SECRETS = [
    "http://user:PW@host/x.git",
    "https://user:PW@host:8443/x.tar.gz#main:dir",
    "http://:PW@host/x",
    "https://PW@github.com/me/it.git",
    "docker://user:PW@127.0.0.1:1/x",
    "user:PW@127.0.0.1:1/x",
    "'user:PW@registry.example.org/x'",
    "ssh://git:PW@host/x",
    "git+https://user:PW@host/x@v1",
    "http://user:PW@[::1]:80/x",
    "http://user:p@PW@host/",
    "http://user:a/PW@host/x",
    "http://user:PW+/=w@host/x",
    'ADD ["http://user:PW@host/x", "/y"]',
    "docker://user:PW@host/x@sha256:" + 64 * "a",
    "ftp://user:%41PW@host",
    "RUN curl http://user:PW…",
    "a http://u:PW@a/ b https://u:PW@b/",
    "proxy=http://user:PW@proxy:3128",
    "HTTP://USER:PW@HOST/",
    "unable to look up user:PW@127.0.0.1:9418 (Name or service not known)",
    "not logged into: user:PW@host:5000",
    "no such file: http:/user:PW@host:1",
    "git@user:PW@host:me/it.git",
    "user:PW@host.example.org:it.git#main",
    "user:PW@host:/srv/it.git",
    "user:PW@registry.example.org/path",
    "https://host/x?token=PW",
    "https://host/x.git?ref=main&access_token=PW#main",
    "https://bucket.example.org/x?X-Amz-Credential=PW&X-Amz-Date=2&X-Amz-Signature=PW",
    "https://account.example.org/x?sv=1&sig=PW%2B&se=2",
    "'https://host/x?private_token=PW'",
    "no such file: /tmp/https:/user:PW@host",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_password_of_a_url_is_not_repeated(text: str) -> None:
    shown = without_passwords(f"cannot fetch: {text}")
    assert "PW" not in shown
    assert "***" in shown
    assert shown.startswith("cannot fetch: ")


@pytest.mark.parametrize(
    "text",
    [
        "http://host:8080/x@v1",
        "docker://host:5000/name:tag@sha256:" + 64 * "a",
        "docker://name:tag@sha256:" + 64 * "a",
        "docker://name@sha256:" + 64 * "a",
        "host:5000/a/b@sha256:" + 64 * "a",
        "ssh://git@github.com/me/it.git",
        "git@github.com:me/it.git",
        "COPY --chown=a:b me@x /x",
        "npm i react-17@npm:react@17.0.2",
        "Containerfile:3: me@example.org",
        "https://example.org/a?b=c@d",
        "https://example.org:443…",
        "rsync -a . me@host:/srv/",
        "url:git@github.com:me/it.git",
        "https://host/x?tag=1&page=2",
        "https://host/token=1?tokens=a",
        "a ? b & token = c",
    ],
)
def test_what_is_no_password_stays(text: str) -> None:
    assert without_passwords(text) == text


@pytest.mark.parametrize(
    "part",
    [
        "a.a-",
        "://a:b/",
        "://",
        "@",
        "a:!",
        "u:p",
        "a@",
        "://u:p@",
        "://a:",
        "x://[",
        "!",
        "a:b@c/",
        "…",
        "a:b@c",
        "?token=",
        "&sig",
    ],
)
def test_a_hostile_text_needs_no_more_than_its_length(part: str) -> None:
    displayed(part * (300_000 // len(part)) + "@…")  # squared, this would take hours
