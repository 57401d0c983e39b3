#!/usr/bin/env python3
"""Writes builda's manual pages: of the verbs from their help, Containerfile.in(5) from docs/containerfile.md.

usage: tools/manpages.py DIRECTORY
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")


def write(directory: Path) -> tuple[Path, ...]:
    """Write every page to `directory`; their paths."""
    sys.path.insert(0, str(ROOT))
    from builda.cli.core.commands import make_group
    from builda.cli.guide.manual import manual

    found = {**manual(make_group()), "Containerfile.in.5": of_format()}
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        (directory / name).write_text(text, encoding="utf-8")
    return tuple(directory / name for name in found)


def of_format() -> str:
    """Containerfile.in(5)."""
    from builda.cli.guide.manual import bold, header, literal

    text = (ROOT / "docs/containerfile.md").read_text(encoding="utf-8")
    section = text.split("\n## Preprocessing: `.in` files\n", 1)[1].split("\n## ", 1)[0]
    example = (ROOT / "examples/Containerfile.in").read_text(encoding="utf-8")
    parts = [header("Containerfile.in", 5), ".SH NAME\n"]
    parts += ["Containerfile.in \\- a Containerfile that is preprocessed before it is built\n"]
    parts += [".SH DESCRIPTION\n", *_roff(section), ".SH EXAMPLE\n", literal(example.rstrip("\n").split("\n"))]
    others = "".join(f", {bold(name)}({number})" for name, number in (("builda-build", 1), ("cpp", 1)))
    return "".join([*parts, ".SH SEE ALSO\n", f"{bold('builda-preprocess')}(1){others}\n"])


def _roff(markdown: str) -> Iterator[str]:
    """Paragraphs and tables of Markdown; a row is a name and what it means."""
    for block in re.split(r"\n\s*\n", markdown.strip()):
        if not block.startswith("|"):
            yield f".PP\n{_inline(' '.join(block.split()))}\n"
            continue
        for row in block.split("\n")[2:]:
            name, text = (cell.strip() for cell in row.strip("|").split(" | ", 1))
            yield f".TP\n{_inline(name)}\n{_inline(text)}\n"


def _inline(text: str) -> str:
    from builda.cli.guide.manual import bold, escaped

    plain = _LINK.sub(r"\1", text)
    return "".join(bold(part) if at % 2 else escaped(part) for at, part in enumerate(plain.split("`")))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
