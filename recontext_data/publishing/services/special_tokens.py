"""Special tokens as literal text: what a tokenizer may read as a command, by the families of models that have it.

A fine-tuning service refuses a whole file for one of them, and a local trainer that parses them teaches the model to end a
turn in the middle of an answer. Sources: the published tokenizer files and encodings of each family.
"""

import re

_FAMILIES: dict[str, tuple[str, ...]] = {
    "OpenAI": (
        "<|endoftext|>", "<|endofprompt|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|im_start|>", "<|im_end|>",
        "<|im_sep|>", "<|startoftext|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>",
        "<|call|>", "<|refusal|>",
    ),
    "Llama": (
        "<s>", "</s>", "<unk>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<|begin_of_text|>", "<|end_of_text|>",
        "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<|finetune_right_pad_id|>",
        "<|step_id|>", "<|image|>", "<|header_start|>", "<|header_end|>", "<|eot|>", "<|eom|>",
    ),
    "Qwen": (
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
        "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
        "<|image_pad|>", "<|video_pad|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
        "<|file_sep|>",
    ),
    "Gemma": (
        "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>",
        "<image_soft_token>",
    ),
    "Mistral": ("<s>", "</s>", "<unk>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
                "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "Phi": ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
}  # fmt: skip

_NUMBERED = {
    re.compile(r"<\|reserved_special_token_\d+\|>"): "Llama",
    re.compile(r"<\|reserved_\d+\|>"): "OpenAI",
    re.compile(r"<unused\d+>"): "Gemma",
}

_PLAIN = sorted({token for tokens in _FAMILIES.values() for token in tokens if "|" not in token}, key=len, reverse=True)

# Whatever looks like <|name|> is taken for one: families add such tokens faster than a table can. No blanks inside, since
# `f <| x |> g` is a line of F#.
_ANY = re.compile(
    r"<\|[^\s|<>]{1,48}\|>|<｜[^\s｜<>]{1,48}｜>|<unused\d{1,4}>|" + "|".join(re.escape(token) for token in _PLAIN)
)


def find(text: str) -> str | None:
    """The first special token in a text, as it stands there; None where there is none."""
    if "<" not in text and "[" not in text:
        return None
    match = _ANY.search(text)
    return match[0] if match else None


def families(token: str) -> list[str]:
    """The families of models that have this token; empty for one that only looks like one."""
    named = [family for family, tokens in _FAMILIES.items() if token in tokens]
    numbered = [family for pattern, family in _NUMBERED.items() if pattern.fullmatch(token)]
    return named + numbered
