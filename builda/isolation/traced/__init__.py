"""A root directory for a command where the kernel gives neither a namespace nor chroot(2).

A filter stops the calls of the command that name files. Most are answered by a supervisor (`answering`), which opens
the path inside the tree, by descriptor, does what the call asks, and hands the result over (seccomp_unotify(2)): the
command never passes a path to the kernel, so it cannot change one between a check and its use. The answers are in
`opening`, `looks`, `entries`, `changes` and `attributes`, which find files by `files`. What a process must do itself
(execve, chdir, connect …) gets another path in its registers (ptrace(2), `tracer`). Where the kernel hands no calls
over, as in gVisor, all of them stop their threads for the tracer, and the answers go into the registers too (`stops`).
`tree` finds paths, `caught_calls` has the numbers and the filters, `kept_aside` the owners and modes of files,
`outside` what of the pod is shown, `injecting` puts descriptors into processes, `programs` says how a program starts
through the loader of its image, and `run` has both sides of a command.
Landlock, where the kernel has it, keeps the command's own calls inside the tree too.
"""
