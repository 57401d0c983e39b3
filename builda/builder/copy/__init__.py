"""Files into a working container: `copy`, `add` and the directory of WORKDIR; and where build contexts come from.

The Builder calls `copying` for the verbs, `builder.build` for COPY, ADD and WORKDIR. `copying` works on trees and
passes containers whose layers are lists to `listcopy`; what both do is in `copyrequest` and `copysources`.

Rule: sources are read and destinations written by descriptor, never by a path that a command may change meanwhile.
"""
