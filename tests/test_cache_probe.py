"""Nine changes to a recipe that was built: each asks the server for exactly what it touches, and the other replies stay.

The server counts. 12 tasks, n=2, one pool: 12 requests for 24 completions.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fault_server import Body, FaultServer, always, completion, json_response
from tests.helpers import arm_hashes, built, candidates, problem_rows, write_problems, write_recipe

TASKS, N = 12, 2
"""Of the recipe before it is changed."""


def answer(body: Body) -> Body:
    """Options, by the place among the choices; with the limit as it was asked for, so that every body is answered alike."""
    return completion(body, texts=[f"Answer: ({'AB'[place % 2]})" for place in range(body["n"])])


class Probe:
    """A recipe that was built once from a counting server, and what each further build asks for."""

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.folder, self.server = folder, server
        self.rows = problem_rows(TASKS)
        policy = {"kind": "openai", "model": "m", "base_url": server.base_url, "api_key_env": ""}
        where = {"kind": "code_mc", "problems": str(folder / "problems.jsonl"), "split": "all", "tasks": None}
        write_problems(folder / "problems.jsonl", self.rows)
        self.path = write_recipe(folder, environment=where, policy=policy, sampler={"n": N})
        assert self.asks() == [self.prompts(), N]
        self.replies = self.keys()

    def build(self, *words: str) -> list[Body]:
        """Builds; the bodies that were sent."""
        before = len(self.server.seen)
        self.made = built(self.path, self.folder / "out", *words)
        return self.server.bodies[before:]
