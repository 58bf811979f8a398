"""What a policy over a model folder says of its prompts, whatever then samples them: tokens, text and how many fit."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from recontext_data.core.chat_template import encode_prompt, render_prompt
from recontext_data.core.errors import InputError
from recontext_data.core.records import Messages
from recontext_data.policies.local.model_folder import ModelFolder, load_tokenizer


class Prompting:
    """A model's tokenizer and chat template, read when they are first needed."""

    continues_prefill = True

    def __init__(self, folder: ModelFolder, *, chat_template: str | None) -> None:
        self._folder = folder
        self._chat_template = chat_template

    def count_tokens(self, messages: Messages | Sequence[Mapping[str, str]]) -> int | None:
        """The prompt's tokens as they are fed to the model; None where its template refuses the messages."""
        try:
            return len(encode_prompt(self._tokenizer, messages=messages))
        except InputError:
            return None

    def prompt_text(self, messages: Messages | Sequence[Mapping[str, str]]) -> str:
        """What is fed to the model, as text.

        Raises:
            InputError: the chat template refuses these messages.
        """
        return render_prompt(self._tokenizer, messages=messages)

    def encode(self, messages: Messages | Sequence[Mapping[str, str]]) -> list[int]:
        """What is fed to the model, as tokens."""
        return encode_prompt(self._tokenizer, messages=messages)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a completion's tokens, the one that ended it not among them."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    @property
    def window(self) -> int | None:
        """Tokens that the model can take in, prompt and completion together, by its config; None where that does not say."""
        return self._folder.window()

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._folder, chat_template=self._chat_template)
