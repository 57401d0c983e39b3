"""What secrets look like: one table. A new kind of secret is a row, with examples that its test reads.

Each pattern takes time linear in what it reads: no repetition inside a repetition, and bounds on all that may be long.
The examples are written in two parts, so that no scanner takes this file for a leak.

How a rule's matches are found (`where`):

token: the pattern begins where a run of 20 letters, digits, - and _ begins.
behind: a run follows a dot or a slash, and the text `anchor` is at most 100 bytes before it, in the match.
anchor: the match begins with the text `anchor`.
settings: in a file of settings, a script, the configuration or the history; the pattern begins with one of `WORDS`.
file: in a file whose path ends with one of `paths`.
"""

from __future__ import annotations

import re
from functools import cache

from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal, TypeAlias

    Where: TypeAlias = Literal["token", "behind", "anchor", "settings", "file"]

RUN = 20
"""The length of the runs of letters and digits that a token has at least."""
BEFORE = 100
LONGEST = 8 << 10
"""Bytes that a match may have at most."""
WORDS = (b"pass", b"secret", b"token", b"key", b"credential")
"""What the names of settings have in them that hold secrets, in lower case."""


class Rule(NamedTuple):
    """One kind of secret. The group `secret`, if the pattern has one, is what must not look like a placeholder."""

    name: str
    kind: str
    where: Where
    pattern: bytes
    good: tuple[tuple[bytes, bytes], ...]  # examples that match, in two parts
    bad: tuple[bytes, ...] = ()  # texts that look alike and do not match
    anchor: bytes = b""
    paths: tuple[str, ...] = ()
    check: Callable[[bytes], bool] | None = None

    def matches(self, text: re.Match[bytes]) -> bool:
        """Whether a match of the pattern is a secret, and no placeholder or example."""
        secret = text["secret"] if "secret" in text.re.groupindex else text[0]
        return self.check is None or self.check(secret)


_WORD = rb"[A-Za-z0-9_-]"
_END = rb"(?![A-Za-z0-9_-])"
_ASSIGNED = (
    rb"(?i)(?:passw(?:or)?d|passphrase|secret|token|(?<=api)key|(?<=api_)key|(?<=api-)key|(?<=access)key|"
    rb"(?<=access_)key|(?<=access-)key|(?<=private_)key|(?<=auth_)key|(?<=secret_)key|credentials?)"
    rb"(?!\w{0,20}(?:file|path|dir|name|url|uri|host|type|length|ttl|policy|id)\b)[\w-]{0,20}"
)
_PLACEHOLDERS = re.compile(
    rb"(?i)x{4}|\*{3}|\.\.\.|changeme|change[_-]me|example|placeholder|your|dummy|sample|redacted|insert|todo|fixme|"
    rb"default|none\b|null\b|undefined|secret|passw|token|user|1234|abcd|test|foo|bar|hunter2|<|>|\{|\}|\$|%|\(|\)|\[|\]|\\"
)


def entropy(text: bytes) -> float:
    """Bits for each byte, by how often each occurs in the text."""
    from math import log2

    size = len(text)
    counts = (text.count(byte) for byte in set(text))
    return -sum(count / size * log2(count / size) for count in counts)


def _is_random(secret: bytes) -> bool:
    """Whether it looks made by chance rather than written by a person: long, mixed, and no placeholder."""
    classes = sum(re.search(kind, secret) is not None for kind in (rb"[a-z]", rb"[A-Z]", rb"[0-9]", rb"[^A-Za-z0-9]"))
    mixed = classes == 4 or (classes >= 2 and re.search(rb"[0-9][^0-9]+[0-9]", secret) is not None)
    return (
        12 <= len(secret) <= 200
        and mixed
        and entropy(secret) >= 3.2
        and _PLACEHOLDERS.search(secret) is None
        and re.match(rb"[./~]|[a-z]+://|\d+(\.\d+)+|sha\d+[:-]|[A-Za-z_]+([./:-][A-Za-z_]+)+$", secret) is None
    )


def _is_password(secret: bytes) -> bool:
    """Whether a value that must be a password is one, and no variable or placeholder."""
    return (
        len(secret) >= 4
        and _PLACEHOLDERS.search(secret) is None
        and re.fullmatch(rb"(?i)true|false|yes|no|none|null|prompt|ask|[0-9.]{1,4}", secret) is None
        and not secret.startswith((b"/", b"./", b"~"))
    )


def _is_no_example(secret: bytes) -> bool:
    """Whether it is no example of documentation."""
    return b"EXAMPLE" not in secret.upper() and len(set(secret[4:])) > 5


def _is_jwt(secret: bytes) -> bool:
    """Whether the header of a JSON Web Token names how it is signed."""
    import binascii

    head = secret.partition(b".")[0]
    try:
        text = binascii.a2b_base64(head.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(head) % 4))
    except ValueError:
        return False
    return re.search(rb'"alg"\s*:\s*"(?!none)', text) is not None


_ALNUM40 = b"k3Xc9Qw7ZtP2Lm8Rv4Ns" + b"B6Yh1Jf5Gd0TaEiUoWqz"
RULES: tuple[Rule, ...] = (
    # Keys
    Rule(
        "private-key",
        "private key",
        "anchor",
        rb"-----BEGIN (?:RSA |EC |DSA |OPENSSH |ED25519 |ENCRYPTED |ANY )?PRIVATE KEY-----(?:\r?\n|\\r?\\?n|\\n)"
        rb"(?:[A-Za-z-]{1,20}: [^\n]{1,100}\n){0,4}\s{0,4}[A-Za-z0-9+/=]{40}",
        ((b"-----BEGIN RSA PRIVATE", b" KEY-----\nMIIEowIBAAKCAQEAtn3d8xqR9sT2vLkWq0aZpYx7u1Jm5cBhGfDeRoNi\n"),),
        (b"-----BEGIN RSA PRIVATE KEY-----\n...", b"-----BEGIN PUBLIC KEY-----\nMIIEowIBAAKCAQEAtn3d8xqR9sT2vLkWq0aZ"),
        anchor=b"-----BEGIN ",
    ),
    Rule(
        "pgp-private-key",
        "PGP private key",
        "anchor",
        rb"-----BEGIN PGP PRIVATE KEY BLOCK-----\r?\n(?:[A-Za-z-]{1,20}: [^\n]{0,100}\n){0,4}\s{0,4}[A-Za-z0-9+/=]{40}",
        ((b"-----BEGIN PGP PRIVATE", b" KEY BLOCK-----\n\nlQVYBGXn3d8xqR9sT2vLkWq0aZpYx7u1Jm5cBhGfDeRoNiVs4AQgAu\n"),),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----",),
        anchor=b"-----BEGIN ",
    ),
    Rule(
        "putty-key",
        "PuTTY private key",
        "anchor",
        rb"PuTTY-User-Key-File-[23]: ?[a-z0-9@.-]{4,40}\r?\n",
        ((b"PuTTY-User-Key", b"-File-3: ssh-ed25519\n"),),
        (b"PuTTY-User-Key-File-",),
        anchor=b"PuTTY-User-Key-File-",
    ),
    Rule(
        "encoded-private-key",
        "private key in base64",
        "token",
        rb"LS0tLS1CRUdJTi(?:BSU0EgUFJJVkFURSBLRVk|BQUklWQVRFIEtFW|BFQyBQUklWQVRFIEtFW|BPUEVOU1NIIFBSSVZBVEUgS0VZ)",
        ((b"LS0tLS1CRUdJ", b"TiBQUklWQVRFIEtFWS0tLS0tCk1JSUV2"),),
        (b"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUV2",),
    ),
    # Tokens with known forms
    Rule(
        "aws-access-key",
        "AWS access key ID",
        "token",
        rb"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}" + _END,
        ((b"AKIA", b"Q3ZL5WJ7PXR2NMVT"),),
        (b"AKIA" + b"IOSFODNN7EXAMPLE", b"AKIAQ3ZL5WJ7PXR2NMVTA"),
        check=_is_no_example,
    ),
    Rule(
        "aws-secret-key",
        "AWS secret access key",
        "settings",
        rb"(?i)(?<=aws_)secret_?(?:access_?)?key[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?"
        rb"(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])",
        ((b"aws_secret_access_key = ", _ALNUM40),),
        (b"aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",),
        check=_is_no_example,
    ),
    Rule(
        "github-token",
        "GitHub token",
        "token",
        rb"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})" + _END,
        (
            (b"ghp_", b"k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh1Jf5Gd0TaEiU"),
            (b"github_pat_", b"11ABCDEFG0k3Xc9Qw7ZtP2_" + b"k3Xc9Qw7Zt" * 5 + b"Lm8Rv4NsB"),
        ),
        (b"ghp_short", b"ghp_" + b"x" * 36),
        check=_is_no_example,
    ),
    Rule(
        "gitlab-token",
        "GitLab token",
        "token",
        rb"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|imt|oas)-[A-Za-z0-9_-]{20,300}",
        ((b"glpat-", b"k3Xc9Qw7ZtP2Lm8Rv4Ns"),),
        (b"glpat-xxxxxxxxxxxxxxxxxxxx", b"glpat-short"),
        check=_is_no_example,
    ),
    Rule(
        "slack-token",
        "Slack token",
        "token",
        rb"(?:xox[abeoprs]|xapp)-[0-9]{1,14}-[A-Za-z0-9-]{10,200}",
        ((b"xoxb-", b"2345678901-2345678901-k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh"),),
        (b"xoxb-not-a-slack-token-at-all",),
        check=_is_no_example,
    ),
    Rule(
        "slack-webhook",
        "Slack webhook",
        "behind",
        rb"hooks\.slack\.com/services/T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/[A-Za-z0-9]{20,30}",
        ((b"https://hooks.slack.com/services/", b"T0A1B2C3D/B0A1B2C3D/k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh"),),
        (b"https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",),
        anchor=b"slack.com",
        check=lambda secret: len(set(secret.rpartition(b"/")[2])) > 5,
    ),
    Rule(
        "npm-token",
        "npm token",
        "token",
        rb"npm_[A-Za-z0-9]{36}" + _END,
        ((b"npm_", b"k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh1Jf5Gd0TaEiU"),),
        (b"npm_config_registry_of_the_whole_project_x",),
        check=_is_no_example,
    ),
    Rule(
        "pypi-token",
        "PyPI token",
        "token",
        rb"pypi-AgE[A-Za-z0-9_-]{50,1000}",
        ((b"pypi-AgEIcHlwaS5vcmc", b"CJGs3Xc9Qw7ZtP2Lm8Rv4NsB6Yh1Jf5Gd0TaEiUoWqzk3Xc9Qw7ZtP2"),),
        (b"pypi-AgEIcHlwaS5vcmc",),
    ),
    Rule(
        "docker-token",
        "Docker Hub token",
        "token",
        rb"dckr_(?:pat|oat)_[A-Za-z0-9_-]{27,64}",
        ((b"dckr_pat_", b"k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh1Jf"),),
        (b"dckr_pat_xxxxxxxxxxxxxxxxxxxxxxxxxxx",),
        check=_is_no_example,
    ),
    Rule(
        "google-api-key",
        "Google API key",
        "token",
        rb"AIza[A-Za-z0-9_-]{35}" + _END,
        ((b"AIza", b"Syk3Xc9Qw7ZtP2Lm8Rv4NsB6Yh1Jf5Gd0Ta"),),
        (b"AIzaSy",),
        check=_is_no_example,
    ),
    Rule(
        "google-oauth-secret",
        "Google OAuth client secret",
        "token",
        rb"GOCSPX-[A-Za-z0-9_-]{28}" + _END,
        ((b"GOCSPX-", b"k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh1Jf5"),),
        (b"GOCSPX-xxxxxxxxxxxxxxxxxxxxxxxxxxxx",),
        check=_is_no_example,
    ),
    Rule(
        "stripe-key",
        "Stripe secret key",
        "token",
        rb"[sr]k_live_[A-Za-z0-9]{20,247}" + _END,
        ((b"sk_live_", b"k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh"),),
        (b"sk_live_xxxxxxxxxxxxxxxxxxxxxxxx", b"sk_test_k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh"),
        check=_is_no_example,
    ),
    Rule(
        "sendgrid-key",
        "SendGrid API key",
        "behind",
        rb"(?<![A-Za-z0-9_.-])SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}" + _END,
        ((b"SG.", b"k3Xc9Qw7ZtP2Lm8Rv4NsB6.k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh1Jf5Gd0TaEiUoWqzAbC"),),
        (b"SG.k3Xc9Qw7ZtP2Lm8Rv4NsB6",),
        anchor=b"SG.",
    ),
    Rule(
        "twilio-key",
        "Twilio API key",
        "token",
        rb"SK[0-9a-f]{32}" + _END,
        ((b"SK", b"0a1b2c3d4e5f60718293a4b5c6d7e8f9"),),
        (b"SK00000000000000000000000000000000",),
        check=_is_no_example,
    ),
    Rule(
        "azure-storage-key",
        "Azure storage key",
        "anchor",
        rb"AccountKey=[A-Za-z0-9+/]{86}==",
        ((b"AccountName=a;AccountKey=", _ALNUM40 * 2 + b"AbCd+/==;"),),
        (b"AccountKey=<key>",),
        anchor=b"AccountKey=",
        check=lambda secret: len(set(secret[11:])) > 10,
    ),
    Rule(
        "vault-token",
        "HashiCorp Vault token",
        "behind",
        rb"(?<![A-Za-z0-9_.-])hv[sbr]\.[A-Za-z0-9_-]{24,300}",
        ((b"hvs.", b"CAESIJk3Xc9Qw7ZtP2Lm8Rv4NsB6"),),
        (b"hvs.xxxxxxxxxxxxxxxxxxxxxxxx",),
        anchor=b"hv",
        check=_is_no_example,
    ),
    Rule(
        "anthropic-key",
        "Anthropic API key",
        "token",
        rb"sk-ant-[a-z]{2,8}[0-9]{2}-[A-Za-z0-9_-]{80,120}",
        ((b"sk-ant-", b"api03-" + _ALNUM40 * 2 + b"AbCdEfGhIj-AA"),),
        (b"sk-ant-api03-xxxx",),
        check=_is_no_example,
    ),
    Rule(
        "openai-key",
        "OpenAI API key",
        "token",
        rb"sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,200}T3BlbkFJ[A-Za-z0-9_-]{20,200}",
        ((b"sk-", b"k3Xc9Qw7ZtP2Lm8Rv4NsT3BlbkFJk3Xc9Qw7ZtP2Lm8Rv4Ns"),),
        (b"sk-k3Xc9Qw7ZtP2Lm8Rv4Ns",),
    ),
    Rule(
        "jwt",
        "JSON Web Token",
        "token",
        rb"eyJ[A-Za-z0-9_-]{14,1000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{20,1000}",
        ((b"eyJhbGciOiJIUzI1NiIs", b"InR5cCI6IkpXVCJ9.eyJzdWIiOiJidWlsZGEifQ.k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh1Jf5Gd0TaEi"),),
        (b"eyJub3QiOiAiYSBqd3QifQaaaa.eyJhIjoiYmNkZWYifQ.k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh1",),
        check=_is_jwt,
    ),
    # Passwords
    Rule(
        "url-password",
        "password in a URL",
        "anchor",
        rb"(?<=[a-z0-9])://[^\s/:@\"'<>]{1,64}:(?P<secret>[^\s/@\"'<>]{8,128})@(?!example|localhost)[A-Za-z0-9.-]{1,100}",
        ((b"postgres://app:", b"k3Xc9Qw7ZtP2@db.internal/app"),),
        (b"https://user:password@example.com/", b"https://user:${PASSWORD}@host/", b"http://a:b@c/"),
        anchor=b"://",
        check=lambda secret: _is_random(secret) if len(secret) >= 12 else _is_random(secret * 2),
    ),
    Rule(
        "assigned-secret",
        "password or token that is assigned",
        "settings",
        _ASSIGNED + rb"[\"']?[ \t]{0,4}(?:=>|[:=])[ \t]{0,4}[\"']?(?P<secret>[^\s\"'#,;`]{12,200})",
        ((b"DB_PASSWORD=", b"k3Xc9Qw7ZtP2Lm"), (b'  "apiKey": "', b'k3Xc9Qw7ZtP2Lm",')),
        (
            b"PASSWORD=changeme12345",
            b"password: ${DB_PASSWORD_1}",
            b"token_file=/run/secrets/token1",
            b"secret = get_secret(name1, 20)",
            b"api-key: aaaaaaaaaaaa11",
            b"password_encryption = scram-sha-256",
        ),
        check=_is_random,
    ),
    Rule(
        "netrc",
        "password in .netrc",
        "file",
        rb"(?:^|\s)password\s{1,8}(?P<secret>\S{4,200})",
        ((b"machine a.example login me ", b"password k3Xc9Qw7"),),
        (b"machine a.example login me password ${TOKEN}",),
        paths=("/.netrc", "/_netrc"),
        check=_is_password,
    ),
    Rule(
        "pgpass",
        "password in .pgpass",
        "file",
        rb"(?m)^(?!#)[^:\n]{1,200}:[^:\n]{1,10}:[^:\n]{1,100}:[^:\n]{1,100}:(?P<secret>[^\n]{1,200})$",
        ((b"db:5432:app:me:", b"k3Xc9Qw7"),),
        (b"# host:port:database:user:password",),
        paths=("/.pgpass",),
        check=_is_password,
    ),
    Rule(
        "git-credentials",
        "password in .git-credentials",
        "file",
        rb"https?://[^\s:@/]{1,100}:(?P<secret>[^\s@/]{4,300})@",
        ((b"https://me:", b"k3Xc9Qw7@git.internal"),),
        (b"https://git.internal/",),
        paths=("/.git-credentials", "/git/credentials"),
        check=_is_password,
    ),
    Rule(
        "registry-auth",
        "credentials of a registry",
        "file",
        rb"\"(?:auth|identitytoken)\"\s{0,8}:\s{0,8}\"(?P<secret>[A-Za-z0-9+/=_.-]{8,4000})\"",
        ((b'{"auths": {"r.internal": {"auth": "', b'bWU6azNYYzlRdzc="}}}'),),
        (b'{"auths": {"r.internal": {}}}',),
        paths=("/.docker/config.json", "/.dockercfg", "/containers/auth.json", "/.dockerconfigjson"),
    ),
    Rule(
        "kubeconfig",
        "credentials of Kubernetes",
        "file",
        rb"(?m)^\s{0,20}(?:- )?(?:token|password|client-key-data): {0,8}[\"']?(?P<secret>[^\s\"']{4,8000})",
        ((b"    client-key-data: ", b"LS0tLS1CRUdJTiBFQyBQUklWQVRF"),),
        (b"    client-certificate-data: LS0tLS1CRUdJTiBDRVJU",),
        paths=("/.kube/config", ".kubeconfig", "/kubernetes/admin.conf"),
        check=_is_password,
    ),
    Rule(
        "npmrc",
        "token in .npmrc",
        "file",
        rb"(?:_authToken|_auth|_password)\s{0,4}=\s{0,4}[\"']?(?P<secret>[^\s\"']{8,2000})",
        ((b"//registry.internal/:_authToken=", b"k3Xc9Qw7ZtP2"),),
        (b"//registry.internal/:_authToken=${NPM_TOKEN}",),
        paths=("/.npmrc", "/etc/npmrc"),
        check=_is_password,
    ),
    Rule(
        "pypirc",
        "password in .pypirc",
        "file",
        rb"(?m)^\s{0,8}password\s{0,4}[:=]\s{0,4}(?P<secret>\S{4,2000})",
        ((b"[pypi]\nusername = me\n", b"password = k3Xc9Qw7"),),
        (b"[pypi]\nusername = me\n",),
        paths=("/.pypirc", "/pip.conf"),
        check=_is_password,
    ),
    Rule(
        "shadow",
        "password hash",
        "file",
        rb"(?m)^[^:\n]{1,64}:\$[0-9a-z]{1,8}\$(?P<secret>[^:\n]{10,300}):",
        ((b"root:$6$", b"k3Xc9Qw7$ZtP2Lm8Rv4NsB6:19000:0:99999:7:::"),),
        (b"root:*:19000:0:99999:7:::",),
        paths=("/etc/shadow", "/etc/shadow-"),
    ),
)
_VARIABLE = re.compile(
    rb"(?i)[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|(?:api|access|private|auth|secret)[_-]?key|credential)s?(?![a-z])"
    rb"(?![\w.-]*(?:file|path|dir|name|url|uri|host|endpoint|id|user|type|length|ttl)\b)[\w.-]*"
)
VARIABLE = Rule(
    "variable",
    "password or token in a variable",
    "settings",
    rb"(?i)(?<![\w.-])(?P<name>[\w.-]{1,100})=[\"']?(?P<secret>[^\s\"';]{1,4000})",
    ((b"APP_PASSWORD=", b"k3Xc9Qw7"), (b"|1 NPM_TOKEN=", b"k3Xc9Qw7 /bin/sh -c make"), (b"SECRETKEY_2=", b"k3Xc9Qw7")),
    (
        b"PASSWORD_FILE=/run/secrets/a",
        b"TOKEN_URL=k3Xc9Qw7",
        b"APP_PASSWORD=$PASSWORD",
        b"TOKENIZER_MODEL=bert-base",
        b"GPG_KEY=A035C8C19219BA821E",
    ),
    check=_is_password,
)
"""A variable of the configuration or of a command in the history: its name says what it is, so any value counts."""


def is_secret_name(name: bytes) -> bool:
    """Whether a variable of this name holds a secret."""
    return _VARIABLE.fullmatch(name[-200:]) is not None


class Compiled(NamedTuple):
    """The rules grouped by how they are found, with compiled patterns."""

    tokens: re.Pattern[bytes]
    behind: re.Pattern[bytes]
    before: tuple[bytes, ...]  # the anchors of `behind`
    anchors: Mapping[bytes, tuple[tuple[Rule, re.Pattern[bytes]], ...]]
    settings: tuple[tuple[Rule, re.Pattern[bytes]], ...]
    files: tuple[tuple[Rule, re.Pattern[bytes]], ...]
    by_group: Mapping[str, Rule]


@cache
def compiled() -> Compiled:
    """The table as the scan uses it."""
    groups = {f"rule{number}": rule for number, rule in enumerate(RULES)}
    anchors: dict[bytes, tuple[tuple[Rule, re.Pattern[bytes]], ...]] = {}
    for rule in RULES:
        if rule.where == "anchor":
            anchors[rule.anchor] = (*anchors.get(rule.anchor, ()), (rule, re.compile(rule.pattern)))

    def joined(where: Where) -> re.Pattern[bytes]:
        parts = (b"(?P<%b>%b)" % (name.encode(), rule.pattern) for name, rule in groups.items() if rule.where == where)
        return re.compile(b"|".join(parts))

    def each(where: Where) -> tuple[tuple[Rule, re.Pattern[bytes]], ...]:
        return tuple((rule, re.compile(rule.pattern)) for rule in RULES if rule.where == where)

    before = tuple(rule.anchor for rule in RULES if rule.where == "behind")
    return Compiled(joined("token"), joined("behind"), before, anchors, each("settings"), each("file"), groups)
