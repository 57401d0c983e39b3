"""`python -m builda` is `builda`."""

from __future__ import annotations

from builda.cli.main import main

main()
