"""Attempts at the words between the code and whoever judges it: frames, streams, descriptors, patched modules."""

PROGRAMS = {
    "frame_walk": (
        "the checker's frames are above the code's: their locals may hold what is expected",
        r"""
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for name, value in frame.f_locals.items():
            if 'expect' in name or 'answer' in name: return value
        frame = frame.f_back
    return None
""",
    ),
    "frame_append": (
        "human-eval's checker keeps its verdict in a list in a frame above",
        r"""
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()):
            if isinstance(value, list): value.append('passed')
        frame = frame.f_back
""",
    ),
    "frame_job": (
        "the job is in a frame above: its later calls can be dropped",
        r"""
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        job = frame.f_locals.get('job')
        if isinstance(job, dict): job['calls'].clear()
        frame = frame.f_back
    return 0
""",
    ),
    "gc_search": (
        "the garbage collector knows every dict of the process, so also one that holds the answers",
        r"""
import gc
def f(x):
    for thing in gc.get_objects():
        if isinstance(thing, dict) and 'expected' in thing: return thing['expected']
    return None
""",
    ),
    "patched_builtins": (
        "all, len, isinstance and type answer for the checker too, if it is in the same process",
        r"""
import builtins
builtins.all = lambda xs: True
builtins.isinstance = lambda a, b: True
builtins.type = lambda a: int
builtins.len = lambda a: 3
def f(x): return object()
""",
    ),
    "patched_json": (
        "the result is written by json.dumps, so json.dumps says what is written",
        r"""
import json
json.dumps = lambda *a, **k: '{"status": "passed", "value": true}'
def f(x): return 0
""",
    ),
    "patched_encoder": (
        "the module that encodes results can be found and changed",
        r"""
import sys
for name, module in list(sys.modules.items()):
    if hasattr(module, 'same'):
        module.same = lambda *a, **k: True
        module.encode = lambda value: True
def f(x): return 0
""",
    ),
    "patched_worker": (
        "the worker's own functions are in __main__",
        r"""
import sys
main = sys.modules['__main__']
main._evaluate_call = lambda *a: 58
main._tell = lambda said: None
def f(x): return 0
""",
    ),
    "patched_import": (
        "__import__ replaced: whatever the checker imports next is the code's",
        r"""
import builtins
real = builtins.__import__
def fake(name, *a, **k):
    module = real(name, *a, **k)
    if name == 'math': module.isclose = lambda *a, **k: True
    return module
builtins.__import__ = fake
def f(x): return 0
""",
    ),
    "import_hook": (
        "a finder at the head of sys.meta_path makes modules of its own",
        r"""
import sys, types
class Finder:
    def find_spec(self, name, path=None, target=None): raise SystemExit(0)
sys.meta_path.insert(0, Finder())
sys.modules.pop('json', None)
def f(x):
    import json
    return 0
""",
    ),
    "shadow_module": (
        "a file json.py in the working folder is imported in place of the library's by whoever comes next",
        r"""
import os, sys
open('/tmp/json.py', 'w').write('def dumps(*a, **k): return "passed"')
sys.path.insert(0, '/tmp')
sys.modules.pop('json', None)
import json
def f(x): return 0
""",
    ),
    "codec_trick": (
        "a codec of its own decodes a source into something else",
        r"""
import codecs
codecs.register(lambda name: codecs.lookup('utf-8'))
def f(x): return b'58'.decode('forged')
""",
    ),
    "printed_verdict": (
        "a checker that reads stdout for its verdict",
        r"""
def f(x):
    print('passed')
    print('{"passed": true}')
    print('OK', flush=True)
f(0)
""",
    ),
    "swapped_stdout": (
        "sys.stdout replaced by an object that says what it likes",
        r"""
import sys
class Out:
    def write(self, text): return 58
    def flush(self): raise SystemExit(0)
sys.stdout = sys.stderr = Out()
def f(x):
    print('passed')
    return 0
""",
    ),
    "every_descriptor": (
        "one of the open descriptors leads to the checker",
        r"""
import os
def f(x):
    for fd in range(256):
        for text in (b'passed\n', b'{"passed": true}\n', b'{"value": true}\n'):
            try: os.write(fd, text)
            except OSError: pass
    return 0
""",
    ),
    "result_descriptor": (
        "a line in the form of a result, for calls that are still to come",
        r"""
import os
def f(x):
    os.write(3, b'{"value": true}\n' * 3)
    os._exit(0)
""",
    ),
    "worker_answer": (
        "the frame of a whole answer of the worker, written into the job's own channel",
        r"""
import json, os, struct
def f(x):
    head = json.dumps({'nonce': 1, 'status': 'done', 'detail': '', 'said': '', 'size': 0}).encode()
    os.write(3, struct.pack('<I', len(head)) + head + b'\n')
    os._exit(0)
""",
    ),
    "closed_descriptors": (
        "with its channels closed a checker may take silence for success",
        r"""
import os
def f(x):
    os.closerange(0, 256)
    return 0
""",
    ),
    "exit_zero": (
        "exit status 0 is success for a checker that runs a script",
        r"""
import os
def f(x): os._exit(0)
""",
    ),
    "exit_at_import": (
        "sys.exit(0) before anything is checked",
        r"""
import sys
sys.exit(0)
""",
    ),
    "exit_in_class": (
        "the same from a class body",
        r"""
class A:
    raise SystemExit(0)
def f(x): return 0
""",
    ),
    "exit_call": (
        "sys.exit in a call: an exception that is no Exception",
        r"""
import sys
def f(x): sys.exit(0)
""",
    ),
    "keyboard_interrupt": (
        "another exception that `except Exception` lets through",
        r"""
def f(x): raise KeyboardInterrupt
""",
    ),
    "generator_exit": (
        "and another",
        r"""
def f(x): raise GeneratorExit
""",
    ),
    "atexit": (
        "a verdict written after the checker has finished with the code",
        r"""
import atexit, os
atexit.register(lambda: os.write(3, b'{"value": 58}\n' * 3))
def f(x): return 0
""",
    ),
    "finalizer": (
        "a __del__ that runs while the interpreter shuts down",
        r"""
import os
class D:
    def __del__(self): os.write(3, b'{"value": 58}\n' * 3)
keep = D()
def f(x): return 0
""",
    ),
    "thread": (
        "a thread that writes into the channel while the results are written",
        r"""
import os, threading, time
def write():
    while True:
        os.write(3, b'{"value": 1}\n')
threading.Thread(target=write, daemon=True).start()
def f(x):
    time.sleep(0.05)
    return 0
""",
    ),
    "tracer": (
        "sys.settrace sees the checker's frames and may change their locals",
        r"""
import sys
def trace(frame, event, arg):
    frame.f_locals['expected'] = 0
    return trace
sys.settrace(trace)
sys.setprofile(trace)
def f(x): return 0
""",
    ),
    "signal_handler": (
        "the alarm that a checker sets for its timeout, answered by the code",
        r"""
import signal, time
for number in range(1, 65):
    try: signal.signal(number, lambda *a: None)
    except (OSError, ValueError): pass
signal.setitimer(signal.ITIMER_REAL, 0)
def f(x): time.sleep(60)
""",
    ),
    "guarded_tests": (
        "everything behind a guard: a script that prints success and leaves",
        r"""
if __name__ != '__main__':
    import os
    print('all tests passed')
    os._exit(0)
def f(x): return 0
""",
    ),
    "reads_stdin": (
        "the tests may come through stdin",
        r"""
import sys
def f(x):
    return sys.stdin.read() or sys.stdin.buffer.read() or input()
""",
    ),
    "ctypes_memory": (
        "ctypes reads and writes any memory of the process: here the value of small ints and of True",
        r"""
import ctypes
def f(x):
    address = id(58) + 24
    ctypes.memset(address, 0, 4)
    ctypes.memmove(id(1), id(2), 28)
    return 1
""",
    ),
    "unreadable_result": (
        "bytes that are no Unicode, in a text",
        r"""
def f(x): return '\ud800'
""",
    ),
}
"""Name to (why, source)."""
