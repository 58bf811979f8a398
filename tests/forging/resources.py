"""More than there is: of time, memory, processes, output, files."""

PROGRAMS = {
    "loop": (
        "never ends",
        r"""
def f(x):
    while True: pass
""",
    ),
    "sleep": (
        "never ends and uses no CPU",
        r"""
import time
def f(x): time.sleep(3600)
""",
    ),
    "loop_at_import": (
        "never gets as far as a test",
        r"""
while True: pass
""",
    ),
    "regex_bomb": (
        "a match in exponential time that holds the interpreter's lock",
        r"""
import re
def f(x): return re.match('(a+)+$', 'a' * 60 + 'b')
""",
    ),
    "long_multiplication": (
        "one operation of the interpreter that no signal interrupts",
        r"""
def f(x): return (3 ** (10**9)) & 1
""",
    ),
    "fork_bomb": (
        "every process starts others",
        r"""
import os
def f(x):
    while True:
        try: os.fork()
        except OSError: pass
""",
    ),
    "fork_bomb_at_import": (
        "the same before any limit of a call",
        r"""
import os
while True:
    try: os.fork()
    except OSError: pass
""",
    ),
    "thread_bomb": (
        "threads are counted elsewhere than processes on some systems",
        r"""
import threading, time
def f(x):
    while True: threading.Thread(target=time.sleep, args=(60,)).start()
""",
    ),
    "memory_bomb": (
        "all memory there is",
        r"""
def f(x):
    a = []
    while True: a.append(bytearray(10_000_000))
""",
    ),
    "memory_bomb_in_many": (
        "a limit per process is multiplied by processes",
        r"""
import os, time
def f(x):
    for _ in range(16):
        if os.fork() == 0:
            b = bytearray(200 * 2**20)
            time.sleep(60)
    time.sleep(60)
""",
    ),
    "shared_memory": (
        "memory that is shared, and so no process's own",
        r"""
import mmap, os, time
def f(x):
    for _ in range(8):
        if os.fork() == 0:
            m = mmap.mmap(-1, 200 * 2**20)
            for i in range(0, len(m), 4096): m[i] = 1
            time.sleep(60)
    time.sleep(60)
""",
    ),
    "system_v_memory": (
        "segments that outlive every process that attached them",
        r"""
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
def f(x):
    for _ in range(100):
        at = libc.shmat(libc.shmget(0, 300 * 2**20, 0o1600), None, 0)
        if at not in (None, 2**64 - 1):
            ctypes.memset(at, 1, 300 * 2**20)
            libc.shmdt(ctypes.c_void_p(at))
    return 0
""",
    ),
    "memory_files": (
        "memory files count for no process while they are not mapped",
        r"""
import os
def f(x):
    while True:
        fd = os.memfd_create('forged')
        for _ in range(15): os.write(fd, bytes(2**20))
""",
    ),
    "deep_recursion": (
        "past the interpreter's limit and through the C stack",
        r"""
import sys
sys.setrecursionlimit(10**9)
def f(x): return f(x) + 1
""",
    ),
    "deep_parse": (
        "a source that overflows the parser",
        r"""
def f(x): return eval('(' * 100_000 + ')' * 100_000)
""",
    ),
    "large_result": (
        "100 MB as one result",
        r"""
def f(x): return 'x' * 100_000_000
""",
    ),
    "many_results": (
        "a hundred million small ones",
        r"""
def f(x): return [[0]] * 20_000_000
""",
    ),
    "large_print": (
        "100 MB to stdout, which fills a pipe or a buffer",
        r"""
import os, sys
def f(x):
    for _ in range(100):
        sys.stdout.write('x' * 1_000_000)
        os.write(1, b'x' * 1_000_000)
    return 0
""",
    ),
    "large_channel": (
        "100 MB into the result channel",
        r"""
import os
def f(x):
    while True: os.write(3, b'x' * 1_000_000)
""",
    ),
    "large_error": (
        "a message of 100 MB in an exception",
        r"""
def f(x): raise ValueError('x' * 100_000_000)
""",
    ),
    "full_tmp": (
        "/tmp filled with as many and as large files as it takes",
        r"""
def f(x):
    for i in range(10**6): open(f'/tmp/escaped-file-{i}', 'wb').write(b'x' * 10**7)
""",
    ),
    "many_files": (
        "a million empty files take no space and all inodes",
        r"""
def f(x):
    for i in range(10**6): open(f'/tmp/escaped-file-{i}', 'w').close()
""",
    ),
    "many_descriptors": (
        "every descriptor there is",
        r"""
import os
def f(x):
    while True: os.dup(1)
""",
    ),
    "many_pipes": (
        "pipe buffers are the kernel's memory",
        r"""
import os, fcntl
def f(x):
    while True:
        r, w = os.pipe()
        fcntl.fcntl(w, 1031, 2**20)
        os.set_blocking(w, False)
        os.write(w, bytes(2**20))
""",
    ),
    "sparse_file": (
        "a file of a terabyte",
        r"""
def f(x): open('/tmp/escaped-file', 'wb').truncate(2**40)
""",
    ),
    "pickle_bomb": (
        "a small pickle that becomes large",
        r"""
import pickle
def f(x):
    a = [0] * 10
    for _ in range(12): a = pickle.loads(pickle.dumps([a] * 10)) + [list(a) for _ in range(10)]
    return [list(a) for _ in range(10**9)]
""",
    ),
    "marshal_crash": (
        "marshal trusts its bytes, and the interpreter crashes",
        r"""
import marshal
def f(x): return marshal.loads(b'c' + b'\xff' * 64)
""",
    ),
    "zip_bomb": (
        "a gigabyte out of a megabyte",
        r"""
import zlib
def f(x): return len(zlib.decompress(zlib.compress(bytes(10**8)) , bufsize=2**30) * 100)
""",
    ),
    "huge_power": (
        "an int that fills the memory",
        r"""
def f(x): return 10 ** 10 ** 10
""",
    ),
    "huge_format": (
        "a format width that fills the memory",
        r"""
def f(x): return '%*d' % (2**31 - 1, 1)
""",
    ),
}
"""Name to (why, source)."""
