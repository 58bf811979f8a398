"""Jobs as messages to a worker, and a worker's answers as outcomes. The code may have written any answer; all is checked."""

import json
from typing import Any

from recontext_data.core import values
from recontext_data.core.errors import DataError
from recontext_data.sandbox.base import Result, SandboxJob, SandboxOutcome, Status

MAX_DETAIL = 1000
"""Characters of an error's name or message that are kept; the worker keeps fewer, but the code may write its own."""


def message(job: SandboxJob, nonce: int) -> dict[str, Any]:
    """What the worker is told. No expected value is in it: the job has none."""
    return {
        "nonce": nonce,
        "source": job.source,
        "stdin": job.stdin,
        "calls": [
            {"function": call.function, "arguments": list(call.arguments), "expression": call.expression} for call in job.calls
        ],
        "timeout_seconds": job.timeout_seconds,
        "memory_bytes": job.memory_bytes,
        "output_bytes": job.output_bytes,
    }


def outcome(job: SandboxJob, head: dict[str, Any], output: bytes) -> SandboxOutcome:
    """What became of a job, from the worker's head of the answer (trusted) and the code's output (not)."""
    limits: dict[str, Status] = {"timeout": "timeout", "output_limit": "output_limit"}
    status = limits.get(head["status"], "crash")
    if job.stdin is not None:
        return _program_outcome(head, status, output)
    results: list[Result] = []
    for line in output.split(b"\n")[:-1]:  # what follows the last newline was cut off
        try:
            said = _loads(line)
            if "source_error" in said and not results:
                return SandboxOutcome(status="source_error", results=(), detail=_text(said["source_error"], said["detail"]))
            results.append(_result(said))
        except (DataError, ValueError, TypeError, KeyError, RecursionError):
            return SandboxOutcome(status="garbled", results=(), detail="the code wrote into its result channel")
        if len(results) > len(job.calls):
            return SandboxOutcome(status="garbled", results=(), detail="more results than calls")
    if len(results) == len(job.calls) and head["status"] == "done":
        return SandboxOutcome(status="ok", results=results)
    return SandboxOutcome(status=status, results=results, detail=head["detail"])


def _program_outcome(head: dict[str, Any], status: Status, output: bytes) -> SandboxOutcome:
    if head["status"] == "done":
        return SandboxOutcome(status="ok", results=(Result(value=output.decode(errors="replace")),))
    try:
        said = _loads(head["said"].partition("\n")[0])
        raised = _text(said["source_error"], said["detail"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raised = ""
    if status == "crash" and raised:
        return SandboxOutcome(status="source_error", results=(), detail=raised)
    return SandboxOutcome(status=status, results=(), detail=head["detail"])


def _loads(text: str | bytes) -> Any:
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON; a value of ours is tagged")


def _result(said: dict[str, Any]) -> Result:
    if set(said) == {"value"}:
        values.decode(said["value"])  # proves the form: the comparison must not fail on it later
        return Result(value=said["value"])
    if set(said) != {"error", "detail"}:
        raise ValueError("neither a value nor an error")
    return Result(error=_text(said["error"]), detail=_text(said["detail"]))


def _text(*parts: object) -> str:
    return ": ".join(str(part)[:MAX_DETAIL] for part in parts)
