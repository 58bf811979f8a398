"""Attempts at other processes: the worker, the keeper, its parents; and processes that would stay behind."""

PROGRAMS = {
    "kill_parent": (
        "the parent is the checker",
        r"""
import os, signal
os.kill(os.getppid(), signal.SIGKILL)
def f(x): return 0
""",
    ),
    "kill_everything": (
        "-1 is every process that may be signalled",
        r"""
import os
for number in (15, 9):
    try: os.kill(-1, number)
    except OSError: pass
def f(x): return 0
""",
    ),
    "kill_group": (
        "0 is the own group, which may be the checker's",
        r"""
import os
os.kill(0, 9)
def f(x): return 0
""",
    ),
    "kill_by_number": (
        "every number there is",
        r"""
import os
for pid in range(2, 5000):
    try: os.kill(pid, 9)
    except OSError: pass
def f(x): return 0
""",
    ),
    "stop_parent": (
        "a stopped checker never times out",
        r"""
import os
os.kill(os.getppid(), 19)
def f(x): return 0
""",
    ),
    "stop_itself": (
        "a stopped process ends by no limit on CPU time",
        r"""
import os
def f(x): os.kill(os.getpid(), 19)
""",
    ),
    "abort": (
        "a crash with a core file",
        r"""
import os
def f(x): os.abort()
""",
    ),
    "segfault": (
        "a crash below Python",
        r"""
import ctypes
def f(x): ctypes.string_at(0)
""",
    ),
    "background": (
        "a child that lives on after the verdict",
        r"""
import os, time
def f(x):
    if os.fork() == 0:
        time.sleep(300)
        os._exit(0)
    return 0
""",
    ),
    "daemon": (
        "double fork and a session of its own: a kill of the process group does not reach it",
        r"""
import os, signal, time
def f(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)
            time.sleep(300)
        os._exit(0)
    return 0
""",
    ),
    "daemon_that_holds_the_pipe": (
        "whoever reads to the end of the pipe waits for a child that holds it open",
        r"""
import os, time
def f(x):
    if os.fork() == 0:
        os.setsid()
        time.sleep(300)
    os._exit(0)
""",
    ),
    "child_that_answers": (
        "a child goes on where the parent was, and both answer",
        r"""
import os
def f(x):
    os.fork()
    os.fork()
    return 0
""",
    ),
    "shell_in_background": (
        "nohup and & from a shell",
        r"""
import subprocess
def f(x):
    subprocess.Popen('nohup sleep 300 >/dev/null 2>&1 &', shell=True, start_new_session=True)
    return 0
""",
    ),
    "multiprocessing": (
        "a pool whose workers are never joined",
        r"""
import multiprocessing as m, time
def f(x):
    [m.Process(target=time.sleep, args=(300,)).start() for _ in range(4)]
    return 0
""",
    ),
    "ptrace": (
        "attaches to its parent and to pid 1 to read their memory",
        r"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    return [libc.ptrace(16, pid, 0, 0) for pid in (1, 2, 3)]
""",
    ),
    "parent_memory": (
        "/proc/<pid>/mem of whoever holds the answers",
        r"""
import os
def f(x):
    for pid in (os.getppid(), 1, 2, 3):
        try: return open(f'/proc/{pid}/mem', 'rb').read(64)
        except OSError: pass
    return 0
""",
    ),
    "parent_descriptors": (
        "/proc/<pid>/fd opens what another process has open",
        r"""
import glob
def f(x):
    for path in glob.glob('/proc/*/fd/*'):
        try: open(path, 'w').write('{"value": 58}\n')
        except OSError: pass
    return 0
""",
    ),
    "vm_read": (
        "process_vm_readv needs no /proc",
        r"""
import ctypes
libc = ctypes.CDLL(None)
def f(x):
    buffer = ctypes.create_string_buffer(64)
    return [libc.process_vm_readv(pid, buffer, 1, buffer, 1, 0) for pid in range(1, 9)]
""",
    ),
    "priority": (
        "the highest priority, and real time, to starve the clock",
        r"""
import os
for act in (lambda: os.nice(-20), lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))):
    try: act()
    except OSError: pass
def f(x):
    while True: pass
""",
    ),
    "execs_itself": (
        "another program in its place, which has forgotten the limits",
        r"""
import os
def f(x): os.execv('/bin/sh', ['sh', '-c', 'echo passed; exit 0'])
""",
    ),
}
"""Name to (why, source)."""
