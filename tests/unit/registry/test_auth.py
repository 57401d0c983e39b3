"""Challenges and tokens."""

from __future__ import annotations

import json

import pytest

from builda.errors import RegistryError
from builda.registry.auth import Authenticator, Challenge, parse_challenges
from builda.registry.certificates import Tls
from builda.registry.http import Http
from builda.registry.keyring import Credentials
from tests.support.registry import Answer, Asked, scripted

SCOPE = frozenset({"repository:a:pull"})


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x y"', [Challenge("basic", {"realm": "x y"})]),
        (
            'Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a:pull,push"',
            [Challenge("bearer", {"realm": "https://a/t?x=1,2", "service": "s", "scope": "repository:a:pull,push"})],
        ),
        ('Basic realm="a", Bearer realm="b" , service=c', [
            Challenge("basic", {"realm": "a"}), Challenge("bearer", {"realm": "b", "service": "c"}),
        ]),
        (r'BEARER Realm="a\"b"', [Challenge("bearer", {"realm": 'a"b'})]),
        ("Negotiate", [Challenge("negotiate", {})]),
        ("", []),
        ("=,=", []),
    ],
)  # fmt: skip
def test_challenges_are_taken_apart(header: str, expected: list[Challenge]) -> None:
    assert list(parse_challenges([header])) == expected


class Clock:
    """A clock that a test sets."""

    time = 1000.0

    def __call__(self) -> float:
        return self.time


def authenticator(http: Http, clock: Clock, credentials: Credentials | None = None) -> Authenticator:
    return Authenticator(http, host="r.io", trust=lambda _: Tls(), credentials=lambda: credentials, clock=clock)


def bearer(address: str, **extra: str) -> list[str]:
    return [", ".join([f'Bearer realm="http://{address}/t"', *(f'{k}="{v}"' for k, v in extra.items())])]


def tokens(asked: Asked) -> Answer:
    return Answer(body=json.dumps({"token": "abc", "expires_in": 100}).encode())


def test_nothing_is_sent_before_the_registry_asks() -> None:
    http = Http(environ={})
    assert authenticator(http, Clock(), Credentials("u", "p")).authorization(SCOPE) is None


def test_a_token_is_fetched_once_for_a_scope_and_again_when_it_ends() -> None:
    clock, http = Clock(), Http(environ={})
    with scripted(tokens) as server:
        auth = authenticator(http, clock)
        assert auth.learn(bearer(server.address, service="s"), base="http://r.io", used=None)
        assert auth.authorization(SCOPE) == auth.authorization(SCOPE) == "Bearer abc"
        assert [asked.path for asked in server.asked] == ["/t?service=s&scope=repository%3Aa%3Apull"]
        clock.time += 95
        auth.authorization(SCOPE)
        assert len(server.asked) == 2
        http.close()


def test_a_rejected_token_is_not_used_again() -> None:
    http = Http(environ={})
    with scripted(tokens) as server:
        auth = authenticator(http, Clock())
        challenge = bearer(server.address)
        auth.learn(challenge, base="http://r.io", used=None)
        assert auth.learn(challenge, base="http://r.io", used=auth.authorization(SCOPE))
        auth.authorization(SCOPE)
        assert len(server.asked) == 2
        http.close()


def test_the_scope_that_the_registry_asks_for_is_added() -> None:
    http = Http(environ={})
    with scripted(tokens) as server:
        auth = authenticator(http, Clock())
        auth.learn(bearer(server.address, scope="repository:b:pull"), base="http://r.io", used=None)
        auth.authorization(SCOPE)
        assert server.asked[0].path.count("scope=") == 2
        http.close()


def test_a_password_is_not_sent_in_the_clear_for_a_registry_on_https() -> None:
    auth = authenticator(Http(environ={}), Clock(), Credentials("u", "p"))
    with pytest.raises(RegistryError, match=r"plain HTTP: http://t\.io/t"):
        auth.learn(['Bearer realm="http://t.io/t"'], base="https://r.io", used=None)


def test_basic_needs_credentials_and_is_tried_once() -> None:
    header = ['Basic realm="x"']
    assert not authenticator(Http(environ={}), Clock()).learn(header, base="https://r.io", used=None)
    auth = authenticator(Http(environ={}), Clock(), Credentials("u", "p"))
    assert auth.learn(header, base="https://r.io", used=None)
    used = auth.authorization(SCOPE)
    assert used == "Basic dTpw"
    assert not auth.learn(header, base="https://r.io", used=used)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"no", b'{"token": 3}', b'{"token": "a\\nX-Evil: 1"}'])
def test_an_answer_without_a_usable_token_is_an_error(body: bytes) -> None:
    http = Http(environ={})
    with scripted(lambda _: Answer(body=body)) as server:
        auth = authenticator(http, Clock())
        auth.learn(bearer(server.address), base="http://r.io", used=None)
        with pytest.raises(RegistryError, match=r"token server of r\.io gave no token"):
            auth.authorization(SCOPE)
        http.close()


def test_a_refused_login_says_so_without_the_password() -> None:
    http = Http(environ={})
    with scripted(lambda _: Answer(401, b'{"errors":[{"code":"X","message":"bad\x1b[31m password"}]}')) as server:
        auth = authenticator(http, Clock(), Credentials("u", "very-secret"))
        auth.learn(bearer(server.address), base="http://r.io", used=None)
        with pytest.raises(RegistryError) as caught:
            auth.authorization(SCOPE)
        http.close()
    assert "cannot get a token for r.io: 401" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "very-secret" not in str(caught.value)
    assert "builda login r.io" in str(caught.value.hint)
