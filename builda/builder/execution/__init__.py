"""A Plan to an image: stage by stage, each step found in the cache or performed and remembered.

`containerfile.build` calls `execute`; verbs also take the options and the script of a build from here.

Rule: what a step leads to depends on its key alone, and `keys` says all that is in a key.
"""
