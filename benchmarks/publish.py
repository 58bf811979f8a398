"""Checking rows and sending large files: `python benchmarks/publish.py [rows] [megabytes]`.

Rows of about 1.5 KB are checked and written as a fine-tuning file (no moderation); a file goes up in parts to a server on
loopback that keeps it on disk. Each in a process of its own, whose peak memory is printed. References: 50,000 rows in under
20 s; 600 MB under 300 MB of memory, arriving as it was sent.
"""

import asyncio
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # for tests/, which are no part of the package

ARM = "standard.default-default"


def check_rows(output: Path) -> dict[str, float]:
    """Checks and writes the run's training rows."""
    from recontext_data.publishing.runs import open_run
    from recontext_data.publishing.services.openai_files import Preflight
    from recontext_data.publishing.services.preflight import RowLimits
    from recontext_data.publishing.sources import RunSource

    source, preflight = RunSource(open_run("small", output=output)), Preflight(RowLimits())
    began, cpu = time.monotonic(), time.process_time()
    examples = source.examples(ARM, "train", method="sft")
    file = asyncio.run(preflight.write(examples, arm=ARM, split="train", folder=output / "files"))
    used = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}
    return {**used, "rows": file.num_rows, "mb": file.num_bytes / 1e6, "peak_mb": peak_mb()}


def send_parts(output: Path, base_url: str) -> dict[str, float]:
    """Sends <output>/large.jsonl in parts."""
    from recontext_data.publishing.services.ledger import Ledger
    from recontext_data.publishing.services.openai_api import Server
    from recontext_data.publishing.services.openai_config import Endpoint
    from recontext_data.publishing.services.openai_files import DataFile
    from recontext_data.publishing.services.openai_upload import Uploader

    path = output / "large.jsonl"
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    file = DataFile(ARM, "train", digest, path.stat().st_size, 0, 0, path)
    endpoint = Endpoint(base_url=base_url)

    async def send() -> str:
        server = Server(endpoint)
        try:
            return await Uploader(server, Ledger(output), endpoint).file_id(file)
        finally:
            await server.close()

    began, cpu = time.monotonic(), time.process_time()
    asyncio.run(send())
    used = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}
    return {**used, "mb": file.num_bytes / 1e6, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def child(job: str, *words: str) -> dict[str, float]:
    """A job of this file in a process of its own."""
    own = os.environ | {"OPENAI_API_KEY": "sk-benchmark", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, __file__, f"--{job}", *words], capture_output=True, text=True, env=own, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def make_rows(output: Path, rows: int) -> None:
    """A run with so many rows of about 1.5 KB."""
    from tests.publish_world import make_run, row

    def longer(number: int) -> dict[str, Any]:
        text = f"def f_{number}(values):\n" + "".join(f"    if values[{i}] < {number}: return [{i}]\n" for i in range(30))
        return {"completion": [{"role": "assistant", "content": text}], "prompt": row(ARM, number)["prompt"]}

    make_run(output, arms=(ARM,), train=rows, validation=1, bad=_Lazily(longer))


class _Lazily(dict[int, dict[str, Any]]):
    """Changes of rows, made when they are asked for: all at once they would be what is measured."""

    def __init__(self, make: Callable[[int], dict[str, Any]]) -> None:
        super().__init__({-1: {}})  # an empty one would be taken for none
        self._make = make

    def get(self, number: int, default: Any = None) -> Any:
        return self._make(number)


def main(rows: int, megabytes: int) -> None:
    """Both measurements, with their references."""
    from tests.batch_server import Contract
    from tests.conftest import ROOT as CHECKOUT
    from tests.fake_openai import FakeOpenAI

    shared = Path(os.environ.get("RECONTEXT_SHARED", CHECKOUT.parent / "shared"))
    contract = shared / "contracts" / "openai-openapi.json"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        make_rows(output, rows)
        found = child("rows", str(output))
        print(f"check {found['rows']:,.0f} rows ({found['mb']:,.0f} MB): {_cost(found)}    reference: 50,000 in under 20 s")
        if not contract.is_file():
            print(f"no uploads measured: the server is held to {contract.name}, which is not in {contract.parent}")
            return
        with (output / "large.jsonl").open("wb") as handle:
            for _ in range(megabytes):
                handle.write(os.urandom(500_000).hex().encode())
        with FakeOpenAI(Contract(contract)) as server:
            found = child("parts", str(output), server.base_url)
            (stored,) = server.files.values()
            with stored.path.open("rb") as came, (output / "large.jsonl").open("rb") as went:
                same = hashlib.file_digest(came, "sha256").digest() == hashlib.file_digest(went, "sha256").digest()
        told = f"send {found['mb']:,.0f} MB in {server.count('add_part')} parts: {_cost(found)}"
        print(f"{told}, {'as sent' if same else 'CHANGED ON THE WAY'}    reference: 600 MB under 300 MB of memory")


def _cost(found: dict[str, float]) -> str:
    return f"{found['seconds']:.1f} s ({found['cpu_seconds']:.1f} s of CPU), peak {found['peak_mb']:.0f} MB"


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["--rows"]:
        print(json.dumps(check_rows(Path(words[1]))))
    elif words[:1] == ["--parts"]:
        print(json.dumps(send_parts(Path(words[1]), words[2])))
    else:
        main(int(words[0]) if words else 50_000, int(words[1]) if words[1:] else 600)
