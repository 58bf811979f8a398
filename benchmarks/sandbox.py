"""How fast MBPP's references are checked: in the sandbox, and beside it as human-eval checks. Needs bubblewrap.

    python -m benchmarks.sandbox mbpp=../shared/data/mbpp.jsonl
    python -m benchmarks.sandbox mbpp=mbpp.jsonl humaneval=humaneval.jsonl plus=mbpp_plus.jsonl workers=2

One check is one solution on all its tests. Beside it, in the same run and with as many workers, a check as human-eval (Chen et
al. 2021) makes it: a new process per check that runs the solution and the asserts together and reports through a shared list.
It isolates nothing, and a solution can forge its verdict. Aim: at least 120 checks a second on two quiet cores. With humaneval=
and plus= it also says how many of those references pass (MBPP+ takes minutes).
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from recontext_data.environments import humaneval, mbpp
from recontext_data.environments.forge import call_of, source_of
from recontext_data.environments.problems import Problem
from recontext_data.sandbox import Sandbox, SandboxJob, open_sandbox

TIMEOUT_SECONDS = 60.0
AIM = 120


def main(arguments: list[str]) -> None:
    """Prints one line per measure."""
    options = dict(argument.split("=", 1) for argument in arguments)
    if "mbpp" not in options:
        print("sandbox: name the problems: mbpp=mbpp.jsonl [humaneval=humaneval.jsonl] [plus=mbpp_plus.jsonl] [workers=2]")
        return
    num_workers = int(options.get("workers", os.cpu_count() or 1))
    problems = mbpp.load(options["mbpp"])
    load = os.getloadavg()[0]
    print(f"machine    {os.cpu_count()} CPUs, {num_workers} workers, load {load:.1f} before the run")
    with open_sandbox(num_workers=num_workers) as sandbox:
        check(problems[:20], sandbox)  # every worker is up
        _report("sandbox", lambda: check(problems, sandbox), f"aim: {AIM}/s")
        _report("human-eval", lambda: _check_beside(problems, num_workers), "isolates nothing")
        if "humaneval" in options:
            tasks = humaneval.load(options["humaneval"])
            print(f"HumanEval  {sum(check(tasks, sandbox))} of {len(tasks)} references pass")
        if "plus" in options:
            _check_plus(options["mbpp"], options["plus"], sandbox)


def _report(name: str, run: Callable[[], Sequence[bool]], remark: str) -> None:
    started, cpu_started = time.monotonic(), _cpu_seconds()
    passed = run()
    seconds, cpu_seconds = time.monotonic() - started, _cpu_seconds() - cpu_started
    rates = f"{len(passed) / seconds:.0f} checks/s in {seconds:.1f} s, {cpu_seconds / len(passed) * 1000:.1f} ms of CPU a check"
    print(f"{name:<11}{sum(passed)} of {len(passed)} pass, {rates} ({remark})")


def _cpu_seconds() -> float:
    """Used by this process and all below it so far: on a busy machine it says more than the clock does."""
    parents: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = (int(fields[1]), sum(map(int, fields[11:15])))
    family = {os.getpid()}
    while more := {pid for pid, (parent, _) in parents.items() if parent in family} - family:
        family |= more
    return sum(parents[pid][1] for pid in family) / os.sysconf("SC_CLK_TCK")


def check(problems: Sequence[Problem], sandbox: Sandbox) -> list[bool]:
    """Whether each reference passes all its tests; values are compared here, in a process that ran none of it."""
    jobs = [
        SandboxJob(
            source=source_of(problem, problem.reference),
            calls=[call_of(problem, test) for test in problem.hidden_tests],
            timeout_seconds=TIMEOUT_SECONDS,
            output_bytes=64 * 2**20,
        )
        for problem in problems
    ]
    return [
        outcome.status == "ok"
        and all(outcome.returned(i, t.expected, tolerance=problem.tolerance) for i, t in enumerate(problem.hidden_tests))
        for problem, outcome in zip(problems, sandbox.run(jobs), strict=True)
    ]


def _check_plus(source: str, plus: str, sandbox: Sandbox) -> None:
    problems = [problem for problem in mbpp.load(source, plus=plus) if len(problem.hidden_tests) > 3 or problem.tolerance]
    started = time.monotonic()
    passed = check(problems, sandbox)
    names = [problem.problem_id for problem, good in zip(problems, passed, strict=True) if not good]
    num_tests = sum(len(problem.hidden_tests) for problem in problems)
    print(
        f"MBPP+      {sum(passed)} of {len(passed)} references pass {num_tests:,} tests in {time.monotonic() - started:.0f} s"
    )
    print(f"           not: {', '.join(names) or 'none'} (164 and 295 contradict the asserts beside them)")


def _check_beside(problems: Sequence[Problem], num_workers: int) -> list[bool]:
    """As human-eval does: threads that each start a process per check and wait for it."""
    with ThreadPoolExecutor(num_workers) as threads:
        return list(threads.map(_check_one, problems))


def _check_one(problem: Problem) -> bool:
    asserts = "\n".join(test.assertion(problem.entry_point) for test in problem.hidden_tests)
    program = f"{source_of(problem, problem.reference)}\nfrom math import nan, inf\n{asserts}\n"
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        verdicts = manager.list()
        process = context.Process(target=_run_beside, args=(program, verdicts))
        process.start()
        process.join(TIMEOUT_SECONDS + 1)
        if process.is_alive():
            process.kill()
            process.join()
        return list(verdicts) == ["passed"]


def _run_beside(program: str, verdicts: Any) -> None:
    """In the new process. The reference solutions of MBPP are harmless; nothing else may be run so."""
    signal.alarm(int(TIMEOUT_SECONDS))
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the process ends with it
    try:
        exec(program, {})
        verdicts.append("passed")
    except Exception as error:
        verdicts.append(f"failed: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
