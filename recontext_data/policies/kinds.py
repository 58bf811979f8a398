"""The kinds of policies, and where each lives: one file there and one line here. Used for what is trained and for judges."""

from typing import Annotated

from recontext_data.kinds import Kinds
from recontext_data.policies.base import AnyPolicy

POLICIES = Kinds(
    {
        "tiny": "recontext_data.policies.tiny:TinyConfig",
        "fake": "recontext_data.policies.fake:FakeConfig",
        "transformers": "recontext_data.policies.transformers_local:TransformersConfig",
        "vllm": "recontext_data.policies.vllm_local:VllmConfig",
        "openai": "recontext_data.policies.openai_chat:OpenAIConfig",
        "openai_batch": "recontext_data.policies.openai_batch:OpenAIBatchConfig",
    }
)
PolicyConfig = Annotated[AnyPolicy, POLICIES]
