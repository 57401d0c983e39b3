"""Licences as SPDX expressions: what a package says, in the words of SPDX where it has them (SPDX 2.3, annex D).

What is no licence of SPDX's list is a reference of the document, `LicenseRef-…`, with the package's own words.
"""

from __future__ import annotations

import hashlib
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_DEBIAN = {
    "expat": "MIT",
    "apache-2": "Apache-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
    "psf": "PSF-2.0",
    "psf-2": "PSF-2.0",
    "zlib/libpng": "Zlib",
    "isc": "ISC",
    "artistic": "Artistic-1.0-Perl",
    "artistic-1": "Artistic-1.0-Perl",
    "artistic-2": "Artistic-2.0",
    "zlib": "Zlib",
    "boost": "BSL-1.0",
}
"""Short names of DEP-5 that SPDX writes otherwise."""
_OTHERS = {
    "mit license": "MIT",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd license": "LicenseRef-BSD-License",
    "isc license (iscl)": "ISC",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "gplv2": "GPL-2.0-only",
    "gplv2+": "GPL-2.0-or-later",
    "gplv3": "GPL-3.0-only",
    "gplv3+": "GPL-3.0-or-later",
    "lgplv2": "LGPL-2.0-only",
    "lgplv2+": "LGPL-2.0-or-later",
    "lgplv3+": "LGPL-3.0-or-later",
}
"""Names that Python's classifiers, RPMs and people use."""
_GNU = re.compile(r"(a?gpl|lgpl|gfdl)-(\d)(?:\.(\d))?(\+?)", re.IGNORECASE)
_LONGEST = 300
"""Characters of an expression; what is longer is a licence's text."""
_DEEPEST = 20
"""Opening parentheses of an expression."""


class Licensing:
    """Makes expressions, and remembers the references that they use: `references` are the words behind each."""

    def __init__(self) -> None:
        from license_expression import get_spdx_licensing

        self._spdx: Any = get_spdx_licensing()
        self._known: dict[str, str] = {}
        self.references: dict[str, str] = {}

    def expression(self, licences: tuple[str, ...]) -> str | None:
        """One expression for licences that all apply; None without any."""
        parts = dict.fromkeys(self._part(licence) for licence in licences if licence)
        if len(parts) < 2:
            return next(iter(parts), None)
        return " AND ".join(f"({part})" if " " in part else part for part in parts)

    def parsed(self, expression: str) -> Any:
        """The expression as a value of the library."""
        return self._spdx.parse(expression)

    def _part(self, words: str) -> str:
        if words not in self._known:
            self._known[words] = self._parsed(words) or self._joined(words) or self._reference(words)
        return self._known[words]

    def _parsed(self, words: str) -> str | None:
        """The words as an expression of SPDX's licences, if they are one."""
        from license_expression import ExpressionError

        if len(words) > _LONGEST or words.count("(") > _DEEPEST:
            return None
        tidy = re.sub(r"\b(and|or|with)\b", lambda found: found[0].upper(), " ".join(words.split()).rstrip(","))
        said = _OTHERS.get(words.lower()) or _DEBIAN.get(words.lower()) or _GNU.sub(_gnu, tidy)
        try:
            parsed = self._spdx.parse(said, validate=True, strict=True)
        except (ExpressionError, RecursionError, TypeError, ValueError, AttributeError):
            return None  # the library raises several kinds for text that is no expression
        return None if parsed is None else str(parsed)

    def _joined(self, words: str) -> str | None:
        """Licences of which SPDX does not have all, joined by `and`, `or` and the comma of DEP-5."""
        groups = [re.split(r"\s+(and|or)\s+", group) for group in re.split(r",\s+and\s+", words)]
        names = [name for group in groups for name in group[::2]]
        if len(names) < 2 or len(words) > _LONGEST or not all(map(_is_name, names)):
            return None
        said = (f"({' '.join(self._word(at, word) for at, word in enumerate(group))})" for group in groups)
        return str(self._spdx.parse(" AND ".join(said)))

    def _word(self, at: int, word: str) -> str:
        return word.upper() if at % 2 else self._part(word)

    def _reference(self, words: str) -> str:
        name = re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-.")
        if name != words or len(name) > 64:  # other words may give the same name
            name = f"{name[:48].strip('-.')}-{hashlib.sha256(words.encode()).hexdigest()[:8]}".lstrip("-")
        reference = f"LicenseRef-{name}"
        self.references[reference] = words
        return reference


def _is_name(words: str) -> bool:
    """Whether it is a licence's short name, with an exception or not, and no sentence."""
    return bool(re.fullmatch(r"[A-Za-z0-9.+/-]+(?:\s+with\s+[A-Za-z0-9.-]+\s+exception)?", words))


def _gnu(found: re.Match[str]) -> str:
    """A GNU licence as SPDX writes it; the text stays where it is written so already."""
    rest = found.string[found.end() :]
    if rest.lower().startswith(("-only", "-or-later", ".")):
        return found[0]
    return f"{found[1].upper()}-{found[2]}.{found[3] or '0'}-{'or-later' if found[4] else 'only'}"
