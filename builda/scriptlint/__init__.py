"""Faults of bash scripts that call builda: what a shell does not see, because it knows nothing of containers.

`calls` takes a script apart by its grammar, `rules` are pure functions from that to findings, and `shellcheck` adds
what that program finds. `builda script lint` calls `lint` and prints. Nothing of a script is ever run.
"""
