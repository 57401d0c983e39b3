"""The kernel's interfaces, as thin functions and plain values.

System calls that Python lacks (`syscalls`), mounts (`mount`, `detached`, `fuse`), user namespaces and subordinate ids,
capabilities, seccomp, landlock, netlink, processes and /proc. `isolation`, `store`, `fs`, `builder` and `host` call
them.

The one rule: nothing here knows of images, containers or options. A function does what the kernel does, and raises the
kernel's OSError, or an error of builda where the way out is known. `syscalls`, `detached`, `fork`, `landlock` and
`netlink` run in the child of a run too, and import the standard library only.
"""
