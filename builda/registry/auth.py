"""Authorization for one repository: a password (basic) or bearer tokens from the token server that the registry names.

The first 401 names the scheme; later requests send the header at once. Tokens are kept in memory only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from builda import jsontext
from builda.errors import RegistryError
from builda.registry.ending import Ending
from builda.registry.failures import login_hint, other_login_hint
from builda.registry.http import Http, Request, Trust, refused
from builda.registry.keyring import Credentials
from builda.registry.url import origin, shown
from builda.values import NamedTuple

_TOKEN_LIMIT = 1 << 20
_DEFAULT_LIFE = 60.0  # seconds, where the server does not say (distribution's token specification)
_LONGEST_LIFE = 1e9
_MARGIN = 10.0  # a token this close to its end is not used any more
# re compiles these when they are first used: most pushes to registries here meet no challenge.
_SCHEME = r"\s*,?\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s+|$)"
_PARAMETER = r'\s*,?\s*([A-Za-z0-9_.-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))'


class Challenge(NamedTuple):
    """One way to authenticate that a WWW-Authenticate header offers; names are lower case."""

    scheme: str
    parameters: Mapping[str, str]


class Token(NamedTuple):
    """A bearer token and the monotonic time at which it ends."""

    text: str
    ends: float

    def __repr__(self) -> str:
        return "Token(…)"


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges in WWW-Authenticate headers (RFC 9110, 11.6.1), without those that cannot be parsed."""
    import re

    found = []
    for text in headers:
        position = 0
        while match := re.compile(_SCHEME).match(text, position):
            position, parameters = match.end(), {}
            while parameter := re.compile(_PARAMETER).match(text, position):
                quoted, plain = parameter.group(2), parameter.group(3)
                value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters[parameter.group(1).lower()] = value
                position = parameter.end()
            found.append(Challenge(match.group(1).lower(), parameters))
    return tuple(found)


class Authenticator:
    """The Authorization headers for one repository. Thread-safe: of several threads, one fetches a token for all."""

    def __init__(
        self,
        http: Http,
        *,
        host: str,
        trust: Trust,
        credentials: Callable[[], Credentials | None],
        clock: Callable[[], float] = time.monotonic,
        ending: Ending | None = None,
    ) -> None:
        self._ending = ending
        self._http = http
        self._host = host
        self._trust = trust
        self._find = credentials
        self._clock = clock
        self._lock = threading.RLock()
        self._challenge: Challenge | None = None
        self._extra: frozenset[str] = frozenset()
        self._tokens: dict[frozenset[str], Token] = {}
        self._found: tuple[Credentials | None] | None = None

    def authorization(self, scopes: frozenset[str]) -> str | None:
        """The header's value for a request that needs `scopes`; None before the first challenge."""
        with self._lock:
            if self._challenge is None:
                return None
            if self._challenge.scheme == "basic":
                credentials = self._credentials()
                return credentials.basic() if credentials is not None else None
            return f"Bearer {self._token(scopes | self._extra).text}"

    def learn(self, headers: Iterable[str], *, base: str, used: str | None) -> bool:
        """Whether another attempt may succeed after a 401 with these headers, to a request that carried `used`."""
        with self._lock:
            if used is not None and used.startswith("Basic "):
                return False
            challenge = self._chosen(parse_challenges(headers))
            if challenge is None:
                return False
            self._refuse_plain_realm(challenge, base)
            asked = frozenset(challenge.parameters.get("scope", "").split())
            news = self._challenge is None or not asked <= self._extra
            self._challenge, self._extra = challenge, self._extra | asked
            stale = [key for key, token in self._tokens.items() if used == f"Bearer {token.text}"]
            for key in stale:  # it ended early, or does not cover what was asked
                del self._tokens[key]
            return news or bool(stale) or used is None

    def _chosen(self, challenges: tuple[Challenge, ...]) -> Challenge | None:
        bearer = next((c for c in challenges if c.scheme == "bearer" and c.parameters.get("realm")), None)
        if bearer is not None:
            return bearer
        basic = next((c for c in challenges if c.scheme == "basic"), None)
        return basic if basic is not None and self._credentials() is not None else None

    def _refuse_plain_realm(self, challenge: Challenge, base: str) -> None:
        realm = challenge.parameters.get("realm", "")
        if challenge.scheme != "bearer":
            return
        try:
            scheme = origin(realm).scheme
        except RegistryError as error:
            raise RegistryError(f"{self._host} names a token server that cannot be asked: {error}") from error
        if base.startswith("https:") and scheme != "https" and self._trust(self._host).verify:
            raise RegistryError(
                f"{self._host} asks for credentials over plain HTTP: {shown(realm)}",
                hint="--tls-verify=false allows it",
            )

    def _credentials(self) -> Credentials | None:
        if self._found is None:
            self._found = (self._find(),)
        return self._found[0]

    def _token(self, scopes: frozenset[str]) -> Token:
        token = self._tokens.get(scopes)
        if token is None or token.ends - _MARGIN < self._clock():
            token = self._tokens[scopes] = self._fetch(scopes)
        return token

    def _fetch(self, scopes: frozenset[str]) -> Token:
        request = self._request(scopes)
        start = self._clock()
        reply, data = self._http.call(request, limit=_TOKEN_LIMIT)
        if reply.status >= 400:
            error = refused(reply, data, request)
            if reply.status in (400, 401, 403):
                error.hint = login_hint(self._host) if self._credentials() is None else other_login_hint(self._host)
            raise error
        return self._parsed(data, start)

    def _request(self, scopes: frozenset[str]) -> Request:
        """The request for a token: an identity token is exchanged by POST, a password shown by GET."""
        assert self._challenge is not None, "asked for only once there is a challenge"
        realm, service = self._challenge.parameters["realm"], self._challenge.parameters.get("service", "")
        credentials = self._credentials()
        what = f"cannot get a token for {self._host}"
        if credentials is not None and credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": "builda",
                "scope": " ".join(sorted(scopes)),
                "refresh_token": credentials.identity_token,
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            from urllib.parse import urlencode

            body = urlencode(form).encode()
            return Request("POST", realm, self._trust, what, headers, body=body, ending=self._ending)
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in sorted(scopes)]
        if credentials is not None:
            query.insert(0, ("account", credentials.username))
        authorization = credentials.basic() if credentials is not None else None
        url = _with_query(realm, query)
        return Request("GET", url, self._trust, what, authorization=authorization, ending=self._ending)

    def _parsed(self, data: bytes, start: float) -> Token:
        try:
            value = jsontext.loads(data)
            text = value.get("token") or value.get("access_token")
            life = value.get("expires_in") or _DEFAULT_LIFE
        except (ValueError, AttributeError, RecursionError):
            text, life = None, _DEFAULT_LIFE
        if not isinstance(text, str) or not _is_visible(text):
            raise RegistryError(f"token server of {self._host} gave no token")
        seconds = life if isinstance(life, int | float) and _DEFAULT_LIFE < life < _LONGEST_LIFE else _DEFAULT_LIFE
        return Token(text, start + seconds)


def _is_visible(text: str) -> bool:
    """Whether the text may stand in a header: characters of ASCII that can be seen."""
    return bool(text) and all("!" <= character <= "~" for character in text)


def _with_query(url: str, query: list[tuple[str, str]]) -> str:
    from urllib.parse import parse_qsl, urlencode, urlsplit

    parts = urlsplit(url)
    return parts._replace(query=urlencode(parse_qsl(parts.query, keep_blank_values=True) + query)).geturl()
