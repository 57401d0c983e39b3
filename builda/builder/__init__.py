"""The primitives: from, mount, run, copy, config, commit. A step of `plan` is the argument of one of them.

`Builder` offers them to verbs and scripts; each is a function of a `Context`, in `run`, `copy`, `image` or a module
here, imported when it is first used. `execution` performs a whole Plan with the same functions.

Rule: a primitive takes a working container and returns it as it is afterwards, or leaves it as it was.
"""
