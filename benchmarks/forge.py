"""How much of MBPP comes through the forge, and how fast. Needs bubblewrap.

    python -m benchmarks.forge mbpp=../shared/data/mbpp.jsonl
    python -m benchmarks.forge mbpp=../shared/data/mbpp.jsonl plus=../shared/data/mbpp_plus.jsonl workers=2

Aims on two cores: all 974 references pass their own tests; 95 % of the problems are forged in under 90 s.
"""

import sys
import time
from collections import Counter

from recontext_data.environments import forge, mbpp
from recontext_data.sandbox import open_sandbox


def main(arguments: list[str]) -> None:
    """Prints one line per measure."""
    options = dict(argument.split("=", 1) for argument in arguments)
    started = time.monotonic()
    problems = mbpp.load(options["mbpp"], plus=options.get("plus"))
    num_tests = sum(len(problem.hidden_tests) for problem in problems)
    print(f"loaded    {len(problems)} problems with {num_tests:,} hidden tests in {time.monotonic() - started:.1f} s")

    started = time.monotonic()
    with open_sandbox(num_workers=int(options["workers"]) if "workers" in options else None) as sandbox:
        forged, dropped = forge.forge(problems, sandbox=sandbox)
    seconds = time.monotonic() - started
    reasons = Counter(reason for _, reason in dropped)
    num_references = len(problems) - sum(n for reason, n in reasons.items() if reason in _ABOUT_THE_REFERENCE)
    print(f"reference {num_references} of {len(problems)} pass their own tests")
    print(f"forged    {len(forged)} ({len(forged) / len(problems):.1%}) in {seconds:.1f} s")
    for reason, count in reasons.most_common():
        names = ", ".join(name for name, other in dropped if other == reason)
        print(f"dropped   {count} {reason}: {names}")
    options_chosen = Counter(problem.forged.hack_option for problem in forged if problem.forged is not None)
    print(f"letters   {dict(sorted(options_chosen.items()))}")


_ABOUT_THE_REFERENCE = ("reference_fails", "reference_timeout", "not_encodable", "nondeterministic")

if __name__ == "__main__":
    main(sys.argv[1:])
