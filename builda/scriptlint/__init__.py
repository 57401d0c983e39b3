"""Faults of bash scripts that call builda: what a shell does not see, because it knows nothing of containers.

`calls` takes a script apart by its grammar, `rules` are pure functions from that to findings, and `shellcheck` adds
what that program finds. `builda script lint` (`cli.verbs.script`) calls all three and prints. No script is ever run.
"""
