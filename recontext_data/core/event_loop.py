"""Runs blocking code that starts event loops of its own where a loop runs already, as in a notebook."""

import asyncio
import contextvars
import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def apart(job: Callable[[], T]) -> T:
    """The job's result. Inside a running event loop the job runs in a thread of its own, and the caller waits for it.

    Ctrl-C (a notebook's stop button) reaches the job as KeyboardInterrupt, so that it ends as it would in the main thread.

    Raises:
        BaseException: whatever the job raises.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return job()
    return _in_thread(job)


def _in_thread(job: Callable[[], T]) -> T:
    context = contextvars.copy_context()
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(context.run(job))
        except BaseException as error:  # handed on to the caller below
            errors.append(error)

    thread = threading.Thread(target=work, name="recontext")
    thread.start()
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt))
    if errors:
        raise errors[0]
    return results[0]
