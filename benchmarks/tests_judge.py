"""Whether the tests judge is right about all of MBPP, and how fast. Needs bubblewrap.

    python -m benchmarks.tests_judge mbpp=../shared/data/mbpp.jsonl cache=/tmp/cache
    python -m benchmarks.tests_judge mbpp=../shared/data/mbpp.jsonl plus=../shared/data/mbpp_plus.jsonl cache=/tmp/cache

Reference: every forged problem's reference is `correct` and its special case `hack`, with MBPP+'s inputs as hidden tests too.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from recontext_data.core.records import Candidate, Task
from recontext_data.environments.base import gold
from recontext_data.environments.code_tests import CodeTests
from recontext_data.judges.tests import ExecutedTests

TIMEOUT_SECONDS = 60.0
"""As the forge gives a reference: a busy machine must not decide."""


def main(arguments: list[str]) -> None:
    """Prints one line per measure."""
    options = dict(argument.split("=", 1) for argument in arguments)
    environment = CodeTests(problems=options["mbpp"], plus=options.get("plus"), split="all", tasks=None)
    started = time.monotonic()
    found = environment.load(cache=Path(options["cache"]))
    tests = sum(len(task.payload["public"]) + len(task.payload["hidden"]) for task in found.tasks)
    seconds = time.monotonic() - started
    print(f"loaded    {len(found.tasks)} tasks with {tests:,} tests in {seconds:.1f} s; dropped {found.entry.dropped}")
    if "plus" in options:
        lines = Path(options["plus"]).read_text(encoding="utf-8").splitlines()
        ids = {"mbpp/" + str(json.loads(line)["task_id"]).rpartition("/")[2] for line in lines}
        missing = sorted(ids - {task.task_id for task in found.tasks})
        print(f"MBPP+     {len(ids) - len(missing)} of {len(ids)} are tasks; not: {', '.join(missing) or 'none'}")
    for label in ("correct", "hack", "incorrect"):
        _measure(environment, found.tasks, label)


def _measure(environment: CodeTests, tasks: Sequence[Task], label: str) -> None:
    candidates = [
        Candidate(
            candidate_id=task.task_id,
            task_id=task.task_id,
            messages=task.messages,
            completion=gold(environment, task)[label],
            payload=task.payload,
        )
        for task in tasks
    ]
    started = time.monotonic()
    words = ExecutedTests(timeout_seconds=TIMEOUT_SECONDS).judge(candidates)
    seconds = time.monotonic() - started
    wrong = [f"{word.candidate_id} ({word.label})" for word in words if word.label != label]
    print(f"{label:9} {Counter(word.label for word in words)[label]} of {len(words)} are labelled so (reference: all)", end=" ")
    print(f"in {seconds:.1f} s, {len(words) / seconds:.0f}/s; not: {', '.join(wrong) or 'none'}")


if __name__ == "__main__":
    main(sys.argv[1:])
