"""What the keeper of a job does while the job runs: reads its pipes, holds its clock, adds up its memory.

Runs inside the sandbox, outside the job's own namespaces: standard library only.
"""

import os
import select
import signal
import time

MAX_PROCESSES = 32
"""Processes and threads of one job, the keeper included."""
WATCH_SECONDS = 0.02
"""How often the memory of a job's processes is added up; most jobs end before the first time."""


class MemoryWatch:
    """The memory of a whole job: limits of the kernel are per process, and a job may have many.

    Made before the job starts: every process that is new since then is the job's.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)  # stays when /proc is covered
        self.others = set(os.listdir(self.proc))

    def exceeded(self) -> str:
        """What is beyond the limit; empty where nothing is."""
        pids = [name for name in os.listdir(self.proc) if name.isdecimal() and name not in self.others]
        num_bytes = sum(self._num_bytes(pid) for pid in pids) if len(pids) > 1 else 0  # one process has a limit of its own
        if num_bytes > self.max_bytes:
            return f"memory: {num_bytes >> 20} MiB in {len(pids)} processes, {self.max_bytes >> 20} MiB allowed"
        return f"more than {MAX_PROCESSES} processes" if len(pids) > MAX_PROCESSES else ""

    def _num_bytes(self, pid: str) -> int:
        """What nothing but this process and its kin holds: anonymous and shared memory; the library's pages are everybody's."""
        try:
            fd = os.open(f"{pid}/status", os.O_RDONLY, dir_fd=self.proc)
        except OSError:  # it has ended
            return 0
        with open(fd, "rb") as stream:
            try:
                lines = stream.read().splitlines()
            except ProcessLookupError:
                return 0
        wanted = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(wanted))


class Collector:
    """Reads what a child writes until it ends, or until its time, its memory or its output is beyond the limit."""

    def __init__(self, child: int, pipes: tuple[int, ...], *, timeout_seconds: float, output_bytes: int) -> None:
        self.deadline = time.monotonic() + timeout_seconds
        self.bytes_left = output_bytes
        self.child = child
        self.parts: dict[int, list[bytes]] = {pipe: [] for pipe in pipes}

    def read(self, pipe: int) -> bytes:
        """All that came through that pipe."""
        return b"".join(self.parts[pipe])

    def collect(self, watch: MemoryWatch) -> tuple[str, str]:
        """`ended`, or why it was killed and the detail of it. It is dead in any case, though not reaped.

        Raises:
            OSError: the kernel has no pidfd_open (Linux 5.3).
        """
        try:
            self.pidfd = os.pidfd_open(self.child)
            self.poll = select.poll()
            for fd in (*self.parts, self.pidfd):
                self.poll.register(fd, select.POLLIN)
            return self._collect(watch)
        finally:
            os.kill(self.child, signal.SIGKILL)

    def _collect(self, watch: MemoryWatch) -> tuple[str, str]:
        watched = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= self.deadline:
                return "timeout", ""
            if now - watched >= WATCH_SECONDS:
                watched = now
                if excess := watch.exceeded():
                    return "crash", excess
            ready = [fd for fd, _ in self.poll.poll(min(self.deadline - now, WATCH_SECONDS) * 1000)]
            if self.pidfd in ready:
                return self._drain()
            if any(not self._read_some(fd) for fd in ready):
                return "output_limit", ""

    def _read_some(self, fd: int) -> bool:
        """Whether that is still within the limit."""
        part = os.read(fd, 1 << 16)
        if not part:
            self.poll.unregister(fd)  # closed by the child, which may live on
        self.parts[fd].append(part)
        self.bytes_left -= len(part)
        return self.bytes_left >= 0

    def _drain(self) -> tuple[str, str]:
        """What is left in the pipes of a child that has ended. Its descendants may hold them open: nothing is waited for."""
        for fd in self.parts:
            os.set_blocking(fd, False)
            try:
                while self._read_some(fd) and self.parts[fd][-1]:
                    pass
            except (BlockingIOError, KeyError):  # empty; or closed, read to its end and unregistered before
                continue
        return ("ended" if self.bytes_left >= 0 else "output_limit"), ""
