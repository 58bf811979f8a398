"""The one renderer: messages to the exact text and tokens that a local model is prompted with.

Sampling, training and evaluation all call these two functions, so that what is trained on begins with what was sampled
from. The tokenizer's chat template carries every special token; the tokenizer adds none of its own on top.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from recontext_data.core.errors import InputError
from recontext_data.core.records import Messages


class ChatTokenizer(Protocol):
    """What is needed of a Transformers tokenizer that has a chat template."""

    def apply_chat_template(self, conversation: Any, /, *, tokenize: bool, add_generation_prompt: bool) -> Any:
        """Text, where `tokenize` is false."""
        ...

    def encode(self, text: str, /, *, add_special_tokens: bool) -> list[int]:
        """Token ids."""
        ...


def render_prompt(tokenizer: ChatTokenizer, *, messages: Messages | Sequence[Mapping[str, str]]) -> str:
    """The prompt as text, up to and including the turn header that the completion follows.

    Raises:
        InputError: the chat template refuses these messages (some have no system turn, for one).
    """
    from jinja2 import TemplateError

    messages, prefill = split_prefill(messages)
    # Copies: templates may alter what they are given, and messages are data.
    conversation = [dict(message) for message in messages]
    try:
        return str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)) + prefill
    except TemplateError as error:
        roles = ", ".join(str(message["role"]) for message in conversation)
        raise InputError(f"the chat template refuses messages with the roles {roles}: {error}") from error


def split_prefill(messages: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The messages that the chat template renders, and the beginning of the answer that stands after its turn header.

    A last assistant turn is what the model goes on with, so it must stand where the model's own first words would: after the
    header, as written. (`continue_final_message` comes to the same with most templates; some trim the text, or open a
    finished turn in another way than one that is to be written.)
    """
    if messages and messages[-1]["role"] == "assistant":
        return messages[:-1], str(messages[-1]["content"])
    return messages, ""


def encode_prompt(tokenizer: ChatTokenizer, *, messages: Messages | Sequence[Mapping[str, str]]) -> list[int]:
    """The prompt as token ids.

    Raises:
        InputError: see `render_prompt`.
    """
    # The rendered text already has the template's BOS: a tokenizer that adds its own would prompt with two.
    return list(tokenizer.encode(render_prompt(tokenizer, messages=messages), add_special_tokens=False))
