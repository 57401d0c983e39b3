"""What a process and its files would be if it were really root, where it has one id only.

The kernel answers a pretended root with errors: it can neither become another user nor give a file away. A supervisor
answers instead, with what is here: credentials of processes (`credentials`, `execution`), the calls about them
(`idcalls`), the table of processes (`processes`), and the owners of files (`ownership`, `statbuffers`). All is pure:
the supervisor reads and writes memory and files, and decides which calls it catches. Errors are OSError with the errno
that the kernel would return.
"""
