"""Files that name many builds (bake files, compose files, matrices), read into values: pure, but for reading a file.

`reading` takes a file as one of the three kinds, `bakejson`, `compose` and `axes` know one each, `resolving` makes the
targets of what was asked for, and `jobgraph` which of them wait for which stages. `cli/verbs/bake` calls all of these.
The rule of this package: every error names the file and the line, and nothing is built before all of it was read.
"""
