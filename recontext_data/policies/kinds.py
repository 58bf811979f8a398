"""The kinds of policies, and where each lives: one file there and one line here. Used for what is trained and for judges."""

from typing import Annotated

from recontext_data.core.registry import Kinds
from recontext_data.policies.base import AnyPolicy

POLICIES = Kinds(
    {
        "tiny": "recontext_data.policies.tiny.policy:TinyConfig",
        "fake": "recontext_data.policies.fake:FakeConfig",
        "transformers": "recontext_data.policies.local.transformers:TransformersConfig",
        "vllm": "recontext_data.policies.local.vllm:VllmConfig",
        "openai": "recontext_data.policies.openai.chat:OpenAIConfig",
        "openai_batch": "recontext_data.policies.openai.batch:OpenAIBatchConfig",
    }
)
PolicyConfig = Annotated[AnyPolicy, POLICIES]
