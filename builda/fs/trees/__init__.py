"""Trees of files: COPY's walk and copies, archives and layers unpacked, layers written.

The builder's copies, the drivers of snapshots and contexts that are archives use it. `copytree` and `unpack` write to a
`Target`, which is a directory on disk or a list of rows (`fs.lists`).

Rule: on disk everything is done by descriptor, and a name is used once. No link leads out of the root.
"""
