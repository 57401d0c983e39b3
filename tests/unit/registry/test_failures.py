"""Small translations: when to come back, what may be shown."""

from __future__ import annotations

import pytest

from builda.registry.failures import refusal, retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("-3", None),
        ("soon", None),
        ("9" * 400, None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": value}, 10.0) == seconds


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"errors":[]}', b'{"errors":[3]}', b"[" * 100_000, b"\xff"])
def test_refusals_without_a_diagnosis_say_the_status(body: bytes) -> None:
    assert str(refusal(503, body, what="cannot x", host="h.io")) == "cannot x: 503 Service Unavailable"


def test_control_characters_of_a_registry_do_not_reach_the_terminal() -> None:
    body = b'{"errors":[{"code":"DENIED","message":"a\\u001b[2Jb\\nc"}]}'
    assert "a [2Jb c" in str(refusal(403, body, what="cannot x", host="h.io"))
