"""The system calls that a job may not make, as a seccomp filter. Runs inside the sandbox: standard library only.

    seccomp.install(seccomp.program())      from here on, in this process and all that it starts, for good

Namespaces, mounts, tracing, kernel keys, BPF, io_uring, modules, clocks: what a solution never needs and where the kernel's
own bugs have been. And what holds memory that belongs to no process (System V shared memory, memory files), which the
watch over a job's memory could not see. Refused calls fail with an error; everything else is allowed, because a list of
what Python may need would differ with every version of it and of libc. The numbers are from the kernel's tables
(asm/unistd_64.h, asm-generic/unistd.h); a test compares them with libseccomp's where it is installed.
"""

import ctypes
import errno
import functools
import os
import struct

REFUSED: dict[str, tuple[int, int]] = {
    # other namespaces and file trees
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438), "kcmp": (312, 272), "move_pages": (279, 239), "migrate_pages": (256, 238),
    # memory that is not a process's
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "vmsplice": (278, 75),
    # the kernel itself
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "syslog": (103, 116), "lookup_dcookie": (212, 18),
    "personality": (135, 92), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
}  # fmt: skip
"""Number on x86_64, number on aarch64."""
ARGUED: dict[str, tuple[int, int]] = {"socket": (41, 198), "socketpair": (53, 199), "clone": (56, 220), "clone3": (435, 435)}
"""Allowed for some arguments: sockets within the machine only; new processes and threads, not new namespaces."""

_ARCHITECTURES = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}  # column above, AUDIT_ARCH_*
_X32 = 0x4000_0000
_NAMESPACES = 0x7E02_0000  # every CLONE_NEW* that clone knows
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; its low half, both being little-endian
_ALLOW, _KILL, _FAIL = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_AF_UNIX = 1


@functools.cache
def program(machine: str | None = None) -> bytes:
    """The filter for a machine (`os.uname().machine` by default); empty for one whose numbers are not listed above."""
    known = _ARCHITECTURES.get(machine or os.uname().machine)
    if known is None:
        return b""
    column, architecture = known
    # A program of another architecture would bring other numbers: it ends there and then.
    code = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, architecture, 1, 0), _step(_RETURN, _KILL), _step(_LOAD, _NUMBER)]
    if column == 0:
        code += [_step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _FAIL | errno.ENOSYS)]
    for numbers in REFUSED.values():
        code += [_step(_EQUAL, numbers[column], 0, 1), _step(_RETURN, _FAIL | errno.EPERM)]
    # The C library asks for clone3 first and, refused so, for clone, whose flags can be seen from here.
    code += [_step(_EQUAL, ARGUED["clone3"][column], 0, 1), _step(_RETURN, _FAIL | errno.ENOSYS)]
    for name in ("socket", "socketpair"):
        code += [_step(_EQUAL, ARGUED[name][column], 0, 4), _step(_LOAD, _FIRST_ARGUMENT), _step(_EQUAL, _AF_UNIX, 1, 0)]
        code += [_step(_RETURN, _FAIL | errno.EAFNOSUPPORT), _step(_RETURN, _ALLOW)]
    code += [_step(_EQUAL, ARGUED["clone"][column], 0, 3), _step(_LOAD, _FIRST_ARGUMENT), _step(_ANY_BIT, _NAMESPACES, 0, 1)]
    code += [_step(_RETURN, _FAIL | errno.EPERM), _step(_RETURN, _ALLOW)]
    return b"".join(code)


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One struct sock_filter; `then` and `otherwise` say how many steps to leave out."""
    return struct.pack("<HBBI", code, then, otherwise, value)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def install(filter: bytes) -> None:
    """Puts this process, and all that it starts, under the filter. An empty one is none.

    Raises:
        OSError: the kernel has no seccomp, or refuses.
    """
    if not filter:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    steps = _Program(len(filter) // 8, filter)
    no_new_rights = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if no_new_rights != 0 or libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(steps), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
