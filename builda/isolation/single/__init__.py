"""A supervisor that lets a command with one id run as if it were root, or a user, of many ids (`emulator`).

`caller` reads the memory of a call's caller, `finding` finds its files, `marks` has the credentials of processes,
`keeper` what is kept aside of files, `showing` and `making` answer the calls that show and make files.
"""
