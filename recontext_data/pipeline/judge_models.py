"""The models of judges that ask one: which they are, what a judge is by content, and what it has asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recontext_data.judges.base import AnyJudge, Asker, Comparer
from recontext_data.policies.base import AnyPolicy, Policy
from recontext_data.policies.openai.batch import OpenAIBatchConfig


@dataclass
class Account:
    """What one judge has asked for, over all its questions and ranks."""

    wanted: int = 0
    sampled: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    """None where the model has no price."""
    failures: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def as_json(self) -> dict[str, Any]:
        """As the manifest has it."""
        failed = len(self.failures)
        return {
            "requests": {
                "wanted": self.wanted,
                "found": self.wanted - self.sampled - failed,
                "sampled": self.sampled,
                "failed": failed,
            },
            "tokens": {"prompt": self.prompt_tokens, "completion": self.completion_tokens},
            "cost_usd": self.usd,
        }


def judge_policy(config: AnyPolicy, *, state: Path | None = None) -> Policy:
    """The model of a judge. Cheap; `state` is where one that has business with a server remembers it."""
    return config.build(state=state) if isinstance(config, OpenAIBatchConfig) else config.build()


def asks(one: AnyJudge) -> bool:
    """Whether a judge asks a model."""
    return isinstance(one, Asker | Comparer)


def policies_of(judges: Sequence[Any], *, state: Path | None = None) -> dict[str, Policy]:
    """The models of the judges that ask one, by the judge's name."""
    return {one.name: judge_policy(one.policy, state=state) for one in judges if asks(one)}


def identities(judges: Sequence[Any], policies: Mapping[str, Policy]) -> dict[str, Any]:
    """What each judge is, by name, as plain data: equal identities say the same of the same text. Names are no part of it.

    For a judge that asks a model: its rubric, its sampling, its model. For one that goes by others: also theirs.
    """
    found: dict[str, Any] = {}
    for one in judges:
        content = dict(one.content) if asks(one) else one.model_dump(mode="json")
        found[one.name] = {key: value for key, value in content.items() if key != "name"}
        if asks(one):
            found[one.name]["policy"] = dict(policies[one.name].identity)
        if others := tuple(getattr(one, "reads", ())):
            found[one.name] = _nameless(found[one.name]) | {"goes_by": [found[other] for other in others]}
    return found


def _nameless(content: Mapping[str, Any]) -> dict[str, Any]:
    """A deriving judge's fields without the names of those that it goes by; weights stay, in these judges' order."""
    kept = {key: value for key, value in content.items() if key != "of"}
    return kept | ({"terms": list(kept["terms"].values())} if "terms" in kept else {})
