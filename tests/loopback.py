"""A server of the tests: an event loop in a thread of its own, from `with` to its end."""

import asyncio
import threading
from types import TracebackType
from typing import Any, Self


class Loopback:
    """Serves on 127.0.0.1 while the `with` block runs; what a server answers is what derives from this."""

    def __init__(self) -> None:
        self.base_url = ""
        self.violations: list[str] = []
        """What nobody may have sent or answered; the end of the block asserts that there is none."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: Any = None

    async def _start(self) -> None:
        """Sets `_runner`, one of aiohttp's, and `base_url`, in the event loop."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(timeout=10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
        if kind is None:
            assert not self.violations, self.violations
