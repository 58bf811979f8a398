"""What the tests of paid judges share: a server that is both policy and judge, and recipes that ask it."""

import asyncio
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from tests.fault_server import Body, FaultServer, _json, completion, refusal
from tests.helpers import CONTEXTS, problem_rows, write_problems, write_recipe

RUBRIC = {"user": "Task:\n{{ prompt }}\n\nAnswer:\n{{ completion }}\n\nHow good?", "answer": {"form": "number"}}
GARBLED = "I would say seven."


class Bench:
    """Answers as the model in the body says: `policy` solves tasks, `judge...` judges them. Counts what each was asked."""

    def __init__(self, *, latency_seconds: float = 0.0) -> None:
        self.latency_seconds = latency_seconds
        self.garbled_share = 0.0
        """Of judges' replies at rank 0, by content."""
        self.refused = ""
        """Judges' prompts with this text get status 400."""

    async def __call__(self, body: Body, count: int) -> web.StreamResponse:
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        if body["model"] == "policy":
            return _json(completion(body, texts=[self.solve(body, place) for place in range(body.get("n", 1))]))
        text = body["messages"][-1]["content"]
        if self.refused and self.refused in text:
            return refusal(400, f"flagged: {self.refused}")
        return _json(completion(body, texts=[self.judge(body)]))

    def solve(self, body: Body, place: int) -> str:
        """The first choice is the same under every context, the second is not."""
        system = body["messages"][0]["content"]
        task = hashlib.sha256(body["messages"][-1]["content"].encode()).hexdigest()[:8]
        return f"{task} steady" if place == 0 else f"{task} as told: {hashlib.sha256(system.encode()).hexdigest()[:8]}"

    def judge(self, body: Body) -> str:
        """A score that the prompt decides; garbled for a share of them unless asked again (then it is not greedy)."""
        draw = int(hashlib.sha256(body["messages"][-1]["content"].encode()).hexdigest()[:8], 16)
        if body["temperature"] == 0 and draw % 1000 < 1000 * self.garbled_share:
            return GARBLED
        return f"Because.\n<score>{draw % 11}</score>"


def asked(server: FaultServer, model: str = "judge") -> Counter[str]:
    """How often each prompt of a model came."""
    return Counter(str(body["messages"]) for body in server.bodies if body["model"] == model)


def at(server: FaultServer, model: str = "judge", **own: Any) -> dict[str, Any]:
    """A policy's config for a model of the server."""
    return {"kind": "openai", "model": model, "base_url": server.base_url, "api_key_env": "", "max_concurrency": 4, **own}


def rubric_file(folder: Path, name: str = "mine", **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(RUBRIC | changes), encoding="utf-8")
    return path


def recipe(folder: Path, server: FaultServer, *, tasks: int = 6, **changes: Any) -> Path:
    """A recipe that samples two answers per task from the server and has it judge them by `mine.yaml`."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "mine.yaml").exists():
        rubric_file(folder)
    problems = write_problems(folder / "problems.jsonl", problem_rows(tasks))
    tree: dict[str, Any] = {
        "environment": {"kind": "code_mc", "problems": str(problems), "split": "all", "tasks": None},
        "contexts": CONTEXTS,
        "policy": at(server, "policy"),
        "sampler": {"n": 2},
        "judges": [{"kind": "choice"}, {"kind": "rubric", "rubric": str(folder / "mine.yaml"), "policy": at(server)}],
        "select": {"keep": "best", "judge": "mine"},
        "prices": {"judge": {"input": 1.0, "output": 2.0}, "policy": {"input": 3.0, "output": 4.0}},
    }
    return write_recipe(folder, **(tree | changes))
