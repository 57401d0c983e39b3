"""Text as people get to read it: nothing in it acts on a terminal, and no password of a URL is repeated.

What a message, a warning, an event or a log line quotes may come from an image, a registry or a Containerfile. It is
made harmless where it is shown, so that code which makes a message need not care. The output of the user's own commands
passes unchanged. Any module may import this.
"""

from __future__ import annotations

HIDDEN = "***"
"""What stands for user and password."""
_ACTING = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed: escape sequences, BEL, 8-bit CSI and OSC
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # direction: they make text read as another
    "\u2028\u2029\u200b\u2060-\u2065\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # seen by programs only
    "\ud800-\udfff"  # bytes that are not UTF-8, halves of pairs: neither can be written
)
_LONGEST = 1024
"""Characters of a password, if nothing else bounds them: the authors of texts may be hostile."""
_IN_URL = (
    r"://(?:"
    r"[^\s/?#@]*@(?:[^\s/?#@]*@)*(?!sha\d+:)"  # up to the last @ of the authority; image@digest is no user
    rf"|[^\s/@:?#]+:(?!\d*(?:[/?#\s\"'…]|$))[^\s@\"',]{{0,{_LONGEST}}}@(?!sha\d+:)"  # a password with a slash
    r"|[^\s/@:?#\[\]]+:(?!\d*…)[^\s@/\"',]*(?=…)"  # one that was cut off
    r")"
)
_BEFORE_NAME = (
    rf"(?<![\w.%+~/@:-])[\w.%+~-]+:[^\s/@\"']{{1,{_LONGEST}}}@(?!sha\d+:)"
    r"(?=(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?:(?::\d+)?/|:\d+(?![\w.:-])))"
)
_SCP = (  # git's user:password@host:path; a user called git has no password
    rf"(?<![\w.%+~/:-])[\w.%+~-]+:(?!git@)[^\s/@\"']{{1,{_LONGEST}}}@(?!sha\d+:)(?=[\w.-]+:[\w./~])"
)
_IN_QUERY = (  # of a URL: tokens and the signatures of storage services
    r"(?i)(?<=[?&])((?:(?:access|private|refresh|id|job|auth|oauth|security|x-amz-security)[_-]?)?token|sig|signature|"
    r"x-amz-(?:signature|credential)|x-goog-(?:signature|credential)|awsaccesskeyid|api[_-]?key|"
    r"(?:client[_-]?)?secret|passw(?:or)?d|pwd|auth)=[^\s&#\"']+"
)
_IN_PATH = rf"(?<=\w:/)[^\s/@:\"']+:[^\s/@\"']{{0,{_LONGEST}}}@(?!sha\d+:)"  # a URL taken for a path: http:/u:p@host


_LAYOUT = {ord(character): None for character in "\t\n"}


def displayed(text: str) -> str:
    """`text` as a terminal, a log or a message may show it. Lines stay lines."""
    return visible(without_passwords(text))


def visible(text: str) -> str:
    """`text` with what acts on a terminal, or cannot be written, as escapes: `\\x1b`, `\\u202e`.

    A byte that is not UTF-8 (PEP 383) becomes `\\xNN`. Tabs and line feeds stay.
    """
    if text.isascii() and text.translate(_LAYOUT).isprintable():  # nearly all; the pattern takes milliseconds to make
        return text
    import re

    return re.sub(f"[{_ACTING}]", lambda found: _escape(ord(found[0])), text)


def visible_in_json(text: str) -> str:
    """A JSON document that acts on no terminal either, and says the same."""
    import json
    import re

    return re.sub(f"[{_ACTING}]", lambda found: json.dumps(found[0])[1:-1], text)


def without_passwords(text: str) -> str:
    """`text` with *** for user and password of each URL, and for `user:password@` before an image, `host:port` or path.

    So are the tokens and signatures in the query of a URL.
    """
    if "=" in text and ("?" in text or "&" in text):
        import re

        text = re.sub(_IN_QUERY, rf"\1={HIDDEN}", text)
    if "@" not in text and "…" not in text:
        return text
    import re

    for pattern, instead in (
        (_IN_URL, _hidden),
        (_IN_PATH, f"{HIDDEN}@"),
        (_BEFORE_NAME, f"{HIDDEN}@"),
        (_SCP, f"{HIDDEN}@"),
    ):
        text = re.sub(pattern, instead, text)
    return text


def _hidden(found: re.Match[str]) -> str:
    said = found[0]
    if ":" not in said[3:] and found.string.endswith("ssh", 0, found.start()):  # git@ of ssh://git@host is no secret
        return said
    return f"://{HIDDEN}@" if said.endswith("@") else f"://{HIDDEN}"


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
