"""Which credentials each process has: children inherit them, execve(2) may change them, and the end forgets them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.emulated.credentials import Credentials


class Processes:
    """The credentials of threads, for a supervisor that sees each of them begin and end.

    Only threads whose credentials differ from `first`, those of the command, are held in memory.
    """

    def __init__(self, first: Credentials) -> None:
        self.first = first
        self._held: dict[int, Credentials] = {}

    def __getitem__(self, thread: int) -> Credentials:
        return self._held.get(thread, self.first)

    def __setitem__(self, thread: int, credentials: Credentials) -> None:
        if credentials == self.first:
            self._held.pop(thread, None)
        else:
            self._held[thread] = credentials

    def __len__(self) -> int:
        return len(self._held)

    def made(self, parent: int, thread: int) -> None:
        """`parent` made a thread or process."""
        self[thread] = self[parent]

    def executed(self, caller: int, leader: int, credentials: Credentials) -> None:
        """A thread executed a program: it goes on as the leader of its process, with these credentials."""
        self.ended(caller)
        self[leader] = credentials

    def ended(self, thread: int) -> None:
        """A thread ended: the kernel may give its number to another."""
        self._held.pop(thread, None)
