"""Starts workers behind bubblewrap: no network, a read-only system, an empty environment, an unprivileged user.

Works as root, and as an ordinary user where the kernel lets users make namespaces. Use it through
`recontext_data.sandbox.open_sandbox`.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from recontext_data.core.errors import SandboxMissing
from recontext_data.sandbox.workers import FILES, WORKER

HOW_TO_GET = "install it: apt-get install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora), pacman -S bubblewrap"
HOW_TO_ALLOW = (
    "let users make namespaces: sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, "
    "or a container started with --privileged"
)
TMP_BYTES = 32 * 2**20


class Bubblewrap:
    """A `Launcher`.

    Raises:
        SandboxMissing: there is no bwrap on PATH.
    """

    name = "bubblewrap"
    how_to_allow = HOW_TO_ALLOW
    start_seconds = 20.0

    def __init__(self, *, single: bool = False) -> None:
        self.single = single
        find_bwrap()

    def start(self, *, single: bool, stderr: Any) -> "subprocess.Popen[bytes]":
        """The worker in bubblewrap; for a single job it is pid 1 in there, which the job cannot end."""
        with contextlib.ExitStack() as stack:
            files = {inside: stack.enter_context(outside.open("rb")) for inside, outside in FILES.items()}
            fds = {inside: stream.fileno() for inside, stream in files.items()}
            return subprocess.Popen(
                _command(fds, single=single),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                pass_fds=list(fds.values()),
                env={},
            )

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """Ends it and, by its pid namespace, all that it started."""
        process.kill()


def find_bwrap() -> str:
    """Where bwrap is.

    Raises:
        SandboxMissing: not on PATH.
    """
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxMissing(f"sandbox: no bwrap on PATH, and code is never run without it; {HOW_TO_GET}")
    return found


def _command(fds: dict[str, int], *, single: bool) -> list[str]:
    """The bwrap command line: what is inside and what is not."""
    command = [find_bwrap(), "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.getuid() == 0:
        # Real root becomes nobody by itself (see the worker); a user namespace would only rename it.
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    command += ["--die-with-parent", "--new-session", "--clearenv", *(["--as-pid-1"] if single else [])]
    # A fixed hash seed: a solution that lists a set gives the same order every time and everywhere.
    for name, text in {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}.items():
        command += ["--setenv", name, text]
    command += _mounts()
    for inside, fd in fds.items():
        command += ["--perms", "0444", "--file", str(fd), inside]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--"]
    return [*command, _interpreter(), "-s", "-S", "-B", WORKER, "single" if single else "warm"]


def _mounts() -> list[str]:
    mounts = ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for folder in ("/bin", "/lib", "/lib64", "/lib32"):
        if os.path.islink(folder):
            mounts += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            mounts += ["--ro-bind", folder, folder]
    prefix = Path(sys.base_prefix)
    if not prefix.is_relative_to("/usr"):
        # Made by hand, or bwrap would close a closed home to the worker, which is not its owner.
        for parent in [*prefix.parents][-2::-1]:
            mounts += ["--perms", "0755", "--dir", str(parent)]
        mounts += ["--ro-bind", str(prefix), str(prefix)]
    return [*mounts, "--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/tmp"]


def _interpreter() -> str:
    """The interpreter that this one is, without its virtual environment: only the standard library is wanted inside."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))
