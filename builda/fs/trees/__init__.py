"""Trees of files in directories: COPY's walk and copies, archives and layers unpacked, layers written.

The builder's copies, the drivers of snapshots and contexts that are archives use it.

Rule: everything is done by descriptor, and a name is used once. No link leads out of the root.
"""
