"""Command lines without secrets."""

from __future__ import annotations

import pytest

from builda.scriptlint.secretwords import masked


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("config", "--env", "API_TOKEN=abc def", "c"), ("config", "--env", "API_TOKEN=***", "c")),
        (("bud", "--build-arg=PASSWORD=x", "."), ("bud", "--build-arg=PASSWORD=***", ".")),
        (("login", "-p", "x", "-u", "me", "host"), ("login", "-p", "***", "-u", "me", "host")),
        (("login", "-px", "host"), ("login", "-p***", "host")),
        (("run", "-p", "x"), ("run", "-p", "x")),
        (("push", "--creds", "me:x", "a"), ("push", "--creds", "***", "a")),
        (("push", "--creds=me:x", "a"), ("push", "--creds=***", "a")),
        (("image", "copy", "--dest-creds", "me:x", "a", "b"), ("image", "copy", "--dest-creds", "***", "a", "b")),
        (("run", "c", "sh", "-c", "TOKEN=a cmd; x"), ("run", "c", "sh", "-c", "TOKEN=***")),
        (("run", "c", "sh", "-c", "set -e; TOKEN=a cmd"), ("run", "c", "sh", "-c", "set -e; TOKEN=*** cmd")),
        (("bash", "-c", "builda login --password x h"), ("bash", "-c", "builda login --password *** h")),
        (("run", "c", "curl", "-H", "A: Bearer abcdefgh"), ("run", "c", "curl", "-H", "A: Bearer ***")),
        (("config", "--env", "TOKEN_FILE=/x", "c"), ("config", "--env", "TOKEN_FILE=/x", "c")),
        (("bud", "--secret", "id=token,src=file"), ("bud", "--secret", "id=token,src=file")),
        ((), ()),
    ],
)
def test_values_that_are_probably_secrets_are_masked(words: tuple[str, ...], shown: tuple[str, ...]) -> None:
    assert masked(words) == shown
