"""What runs in the child: the process between builda and the command.

`start` is the script that `isolation.launch` executes; `enter` makes the processes and namespaces, `rootfs` the mount
tree with its `mountpoints`, `exec_command` becomes the command. `proc_server` answers calls about /proc and /dev where
nothing can be mounted, `id_mapping` is the user namespace of a command's own, `relay` its network without rights.
`device_hook` is the script that an OCI runtime executes.

The one rule: these modules import nothing but each other, the standard library (little of it) and the modules of
`linux` that keep the same rule. Every RUN step waits for these imports. tests/unit/isolation/test_wire.py checks it.
"""
