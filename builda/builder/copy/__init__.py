"""Copies into a working container: COPY, ADD and the directory of WORKDIR; and where build contexts come from.

The Builder calls `copying` for the verbs, `builder.execution` for a Containerfile. `destination` opens the tree or the
list of a container as a `Target`, `copysources` the sources; `copyrequest` says what is asked for.

Rule: sources are read and destinations written by descriptor, never by a path that a command may change meanwhile.
"""
