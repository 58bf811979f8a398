"""What sampling from an OpenAI-compatible server costs beside the least that it can cost, and that nothing gets lost.

    python -m benchmarks.sampling               all of it, about fifteen minutes; 1 where a part ended with an error
    python -m benchmarks.sampling wire          wall, CPU and memory beside a raw aiohttp loop (repeat=5 for better numbers)
    python -m benchmarks.sampling memory n limit faults poison
    python -m benchmarks.sampling kills store prefix     benchmarks of their own: kill -9, a million replies, shared prompts
    python -m benchmarks.sampling holds         tests: nine changes to a recipe, full disks, a planted key

Each measured process is a child of this one, from its start to its end, imports included; CPU and memory are what the
kernel says of it when it ends. The server is tests/fault_server.py in a process of its own, fresh for each measure.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import polars as pl

ROOT = Path(__file__).resolve().parent.parent
CONCURRENCY = 256
WIRE_AIMS = "aims: at most 2.0x the wall, 2.5x the CPU, 110 MB"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a child cost, and what it printed."""

    wall_seconds: float
    cpu_seconds: float
    peak_mb: float
    said: dict[str, Any]


@contextmanager
def server(*options: str) -> Iterator[str]:
    """A fault server in its own process; gives its base URL."""
    import subprocess  # the children must not be charged for it

    command = [sys.executable, "-m", "tests.fault_server", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def sums(base_url: str) -> dict[str, Any]:
    """What the server has seen."""
    from urllib.request import urlopen

    with urlopen(f"{base_url}/seen") as response:
        seen: dict[str, Any] = orjson.loads(response.read())
    return seen


def child(who: str, base_url: str, num: int, n: int = 1) -> Cost:
    """Runs `raw` or `ours` as a child and takes its bill from the kernel."""
    read, write = os.pipe()
    started = time.monotonic()
    arguments = [sys.executable, "-m", "benchmarks.sampling", "--child", who, base_url, str(num), str(n)]
    actions = [(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_CLOSE, read)]
    pid = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=actions)
    os.close(write)
    _, status, used = os.wait4(pid, 0)
    wall = time.monotonic() - started
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    if status:
        raise SystemExit(f"the child {who} failed with status {status}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, orjson.loads(said))


def main(arguments: list[str]) -> int:
    """Prints one line per measure, each beside its reference.

    Returns 1 if one that is a program of its own ended with an error, 2 for a wrong name.
    """
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    chosen = [argument for argument in arguments if "=" not in argument] or list(MEASURES)
    if wrong := [name for name in chosen if name not in MEASURES] + [name for name in options if name != "repeat"]:
        print(f"{wrong[0]}: no such measure or option; there are {', '.join(MEASURES)} and repeat=NUMBER", file=sys.stderr)
        return 2
    ended = [MEASURES[name](int(options.get("repeat", 3))) for name in chosen]
    return int(any(ended))


def wire(repeat: int) -> None:
    """Wall, CPU and memory beside a raw loop, for 2,000 prompts and for 20,000."""
    import statistics

    for num, times in ((2_000, repeat), (20_000, 1)):
        pairs = []
        for _ in range(times):
            with server("--latency_seconds", "0.05") as url:
                raw = child("raw", url, num)
            with server("--latency_seconds", "0.05") as url:
                ours = child("ours", url, num)
            assert ours.said["replies"] == raw.said["replies"] == num
            pairs.append((raw, ours))
        for name, unit, values in (
            ("wall", "s", [(raw.wall_seconds, ours.wall_seconds) for raw, ours in pairs]),
            ("CPU", "s", [(raw.cpu_seconds, ours.cpu_seconds) for raw, ours in pairs]),
            ("memory", "MB", [(raw.peak_mb, ours.peak_mb) for raw, ours in pairs]),
        ):
            ratios = sorted(ours / raw for raw, ours in values)
            best = min(values, key=lambda pair: pair[1] / pair[0])
            print(
                f"wire   {num:>6,} prompts  {name:<6} {best[1]:7.2f} {unit:<2} beside {best[0]:6.2f} {unit:<2} raw: "
                f"best {ratios[0]:.2f}x, median {statistics.median(ratios):.2f}x of {times}"
            )
    print(f"       {WIRE_AIMS}; {CONCURRENCY} at a time, server answers after 50 ms, journal and progress on")


def memory(repeat: int) -> None:
    """What ten and a hundred times the prompts take."""
    peaks = dict[int, float]()
    for num in (2_000, 20_000, 60_000, 200_000):
        with server("--latency_seconds", "0.05") as url:
            cost = child("ours", url, num)
        assert cost.said["replies"] == num
        peaks[num] = cost.peak_mb
        print(f"memory {num:>7,} prompts {cost.peak_mb:6.1f} MB beside {peaks[2_000]:.1f} MB for 2,000")
    step = (peaks[200_000] - peaks[20_000]) * 2**20 / 180_000
    print(f"       from 20,000 to 200,000: {step:.0f} bytes a prompt")


def several(repeat: int) -> None:
    """Best-of-16 in one request."""
    with server("--latency_seconds", "0.05") as url:
        cost, seen = child("ours", url, 500, 16), sums(url)
    asked = 500 * 10
    print(
        f"n=16   {cost.said['replies']:,} completions in {seen['requests']} requests; prompt tokens billed "
        f"{seen['prompt_tokens']:,} beside {asked:,} for each prompt once; counted in the store {cost.said['prompt_tokens']:,}"
    )


def limit(repeat: int) -> None:
    """A server that lets 60 requests a second in."""
    kinds = {"bucket of 10": ("--burst", "10"), "bucket of 60": ("--burst", "60"), "whole seconds": ("--window", "1")}
    for name, options in kinds.items():
        for form in ("seconds", "date"):
            with server("--rate_per_second", "60", "--latency_seconds", "0.05", "--retry_after", form, *options) as url:
                cost, seen = child("ours", url, 600), sums(url)
            took, refusals = seen["last"] - seen["first"], seen["statuses"].get("429", 0)
            print(
                f"limit  {cost.said['replies']} of 600 in {took:5.2f} s beside 10 s (aim 11; whole process "
                f"{cost.wall_seconds:5.2f} s), {refusals} refusals; 60/s by {name}, Retry-After in {form}"
            )


def faults(repeat: int) -> None:
    """Servers that fail now and then."""
    for name in ("fail_rate", "reset_rate", "cut_rate", "truncate_rate"):
        with server("--latency_seconds", "0.05", f"--{name}", "0.05") as url:
            cost, seen = child("ours", url, 2_000), sums(url)
        print(f"faults {cost.said['replies']:,} of 2,000 with {name} 5 %, in {seen['requests']:,} requests")


def poison(repeat: int) -> None:
    """Ten prompts that are always refused."""
    with server("--latency_seconds", "0.05", "--poison", "prompt 0077") as url:
        cost = child("ours", url, 2_000)
    words = sorted(set(cost.said["failures"].values()))
    print(f"poison {cost.said['replies']:,} of 2,000 and {len(cost.said['failures'])} failures (of 10 poisoned), each: {words}")


def program(*words: str) -> Callable[[int], int]:
    """A measure that is a program of its own: prints what that prints, gives its exit code."""

    def run(repeat: int) -> int:
        import subprocess

        print(f"== {' '.join(words)}", flush=True)
        return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=False).returncode

    return run


HELD = ("tests/test_cache_probe.py", "tests/test_full_disk.py", "tests/test_paid_once.py")
"""What is a yes or no and no figure: what each of nine changes asks for again, full disks, a planted key."""

MEASURES: dict[str, Callable[[int], int | None]] = {
    "wire": wire,
    "memory": memory,
    "n": several,
    "limit": limit,
    "faults": faults,
    "poison": poison,
    "kills": program("benchmarks.kills"),
    "store": program("benchmarks.store"),
    "prefix": program("benchmarks.prefix"),
    "holds": program("pytest", "-v", "--no-header", "-p", "no:cacheprovider", *HELD),
}


def prompts(num: int) -> Iterator[Any]:
    """Chat prompts of some 300 characters."""
    for i in range(num):
        yield [
            {"role": "system", "content": "You choose one of two implementations." * 4},
            {"role": "user", "content": f"{'x' * 120} prompt {i:05}"},
        ]


async def raw_child(base_url: str, num: int) -> dict[str, Any]:
    """The least that it takes: a pool, a semaphore's worth of workers, JSON in and out."""
    import aiohttp

    how = {"model": "m", "n": 1, "temperature": 1.0, "top_p": 1.0, "max_tokens": 256}
    bodies = (orjson.dumps({**how, "messages": messages, "seed": i}) for i, messages in enumerate(prompts(num)))
    texts: list[str] = []

    async def worker(session: aiohttp.ClientSession) -> None:
        for body in bodies:
            async with session.post(f"{base_url}/chat/completions", data=body) as response:
                texts.append(orjson.loads(await response.read())["choices"][0]["message"]["content"])

    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY), headers=headers) as session:
        await asyncio.gather(*[worker(session) for _ in range(CONCURRENCY)])
    return {"replies": len(texts)}


async def our_child(base_url: str, num: int, n: int) -> dict[str, Any]:
    """The sample stage of a build: plan, buy with journal and progress, and the table of candidates on disk."""
    import tempfile

    import recontext_data.cli  # noqa: F401 - it sets Polars' allocator, as in every command
    from recontext_data.core.records import SamplingParams, Task
    from recontext_data.pipeline import sample
    from recontext_data.pipeline.purchase import buy
    from recontext_data.policies.openai.chat import OpenAIConfig
    from recontext_data.reports.screen import Screen
    from recontext_data.store.replies import ReplyStore
    from recontext_data.store.run_folder import RunFolder
    from recontext_data.store.task_file import TaskFile

    tasks = TaskFile(Task(task_id=f"t{i}", messages=turns, payload={}, split="train") for i, turns in enumerate(prompts(num)))
    policy = OpenAIConfig(model="m", base_url=base_url, api_key_env="", max_concurrency=CONCURRENCY).build()
    pools = [sample.Pool(name="default", context=None, n=n, role="arms")]
    with tempfile.TemporaryDirectory() as folder, ReplyStore(Path(folder) / "replies") as store:
        plan = sample.plan(tasks, pools, sampling=SamplingParams(), seed=0, identity=dict(policy.identity), store=store)
        with Screen().stage("sample", num * n, unit="completions") as tracker:
            failures = await buy(plan.requests, policy=policy, store=store, tracker=tracker, max_failures=num)
        await policy.close()
        run = RunFolder(Path(folder), recipe="benchmark", fingerprint="sampling")
        run.path.mkdir(parents=True)
        said = {"replies": 0, "failures": failures, "prompt_tokens": 0}
        run.write_parts("candidates", _counted(sample.Collected(plan, store=store, failures=failures), said))
    return said


def _counted(parts: "Iterable[pl.DataFrame]", said: dict[str, Any]) -> "Iterator[pl.DataFrame]":
    for part in parts:
        said["replies"] += len(part)
        said["prompt_tokens"] += int(part["prompt_tokens"].sum())
        yield part


def child_main(who: str, base_url: str, num: int, n: int) -> None:
    """The measured process."""
    said = asyncio.run(raw_child(base_url, num) if who == "raw" else our_child(base_url, num, n))
    sys.stdout.buffer.write(orjson.dumps(said))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child_main(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        sys.exit(main(sys.argv[1:]))
