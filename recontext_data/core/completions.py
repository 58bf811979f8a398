"""Reads completions: which part is reasoning, which is the answer, and which is the code. Pure; nothing is parsed as code.

    read_code("First ...\\n```python\\ndef f(n): ...\\n```", entry_point="f").code      "def f(n): ..."

Fences are read as CommonMark reads them: three or more backticks or tildes, indented by at most three columns, and closed by
a fence of the same sign that is at least as long and has no word after it.
"""

import re
from dataclasses import dataclass
from typing import Literal

Marks = Literal["think", "code", "beside"]
"""Where a policy's reasoning stands.

`think`: in <think> tags before the answer. `code`: in the text around the last complete code block, which is the answer.
`beside`: not in the completion at all; the server returned it in a field of its own, and rows never carry it.
"""

_FENCE = re.compile(r"( {0,3})(`{3,}|~{3,})(.*)")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")  # str.splitlines would also part lines at a form feed or U+2028 inside of code
_OPEN, _CLOSE = "<think>", "</think>"

PYTHON = ("", "python", "python3", "py")
"""The languages of a block that can be the answer: a block of shell or of output is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block."""

    language: str
    """The first word after the opening fence, in lower case; empty where there is none."""
    code: str
    """What stands between the fences, with its last newline."""
    start: int
    """Where its opening fence starts in the text."""
    stop: int
    """Where its closing fence ends, without the newline."""
    is_closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The code of a completion, or why there is none."""

    code: str | None
    reason: str = ""


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a text, in order; the last may be open."""
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None  # where it starts, its fence with its indent, its language
    body = position = 0
    for line in _LINE.findall(text):
        bare = line.rstrip("\r\n")
        start, position = position, position + len(line)
        match = _FENCE.fullmatch(bare)
        if match is None:
            continue
        indent, fence, rest = match[1], match[2], match[3].strip()
        if opened is None:
            if "`" not in rest or fence[0] == "~":  # ```a``` on one line is not a block
                opened, body = (start, indent + fence, rest.split()[0].lower() if rest else ""), position
        elif not rest and fence.startswith(opened[1].lstrip()):
            found.append(_block(opened, text[body:start], stop=start + len(bare), is_closed=True))
            opened = None
    if opened is not None:
        found.append(_block(opened, text[body:], stop=len(text), is_closed=False))
    return found


def _block(opened: tuple[int, str, str], body: str, *, stop: int, is_closed: bool) -> Block:
    start, fence, language = opened
    # The indent of the fence is the block's and not the code's. Unlike Markdown, code does not bear to lose a part of it.
    indent = fence[: len(fence) - len(fence.lstrip())]
    lines = _LINE.findall(body)
    if indent and all(line.startswith(indent) or not line.strip() for line in lines):
        body = "".join(line.removeprefix(indent) for line in lines)
    return Block(language=language, code=body, start=start, stop=stop, is_closed=is_closed)


def after_thinking(text: str) -> str | None:
    """What follows the last </think>; the whole text where there are no such tags; None where they are never closed."""
    _, tag, answer = text.rpartition(_CLOSE)
    if not tag:
        return None if text.lstrip().startswith(_OPEN) else text
    return None if answer.lstrip().startswith(_OPEN) else answer


def answer_block(text: str) -> Block | None:
    """The last complete Python block: several are drafts and then the answer; an open one was cut off."""
    return next((block for block in reversed(blocks(text)) if block.is_closed and block.language in PYTHON), None)


def read_code(completion: str, *, entry_point: str) -> Code:
    """The code that a completion answers with.

    It is the last complete Python block after the thinking. A text without any fence is code as a whole when a line of it
    defines the entry point; nothing is guessed beyond that.
    """
    answer = after_thinking(completion)
    if answer is None:
        return Code(code=None, reason="the thinking does not end")
    block = answer_block(answer)
    if block is not None and block.code.strip():
        return Code(code=block.code)
    if block is not None:
        return Code(code=None, reason="the last code block is empty")
    if found := blocks(answer):
        open_one = not found[-1].is_closed
        return Code(code=None, reason="the code block is not closed" if open_one else "no code block is Python")
    name = re.escape(entry_point)
    if re.search(rf"^(?:(?:async )?def {name}\b|{name}[ \t]*=[^=])", answer, re.MULTILINE):
        return Code(code=answer)
    return Code(code=None, reason="there is no code block")


def split_reasoning(completion: str, *, marks: Marks) -> tuple[str, str] | None:
    """(reasoning, answer) of a completion, the tags in neither; None where the answer cannot be told from the reasoning.

    Together they are the completion but for tags and white space, except that with `code` the text after the block, which is
    said about the answer, is reasoning too.
    """
    if marks == "beside":
        return "", completion
    if marks == "think":
        answer = after_thinking(completion)
        if answer is None or not answer.strip():
            return None
        thought = completion[: len(completion) - len(answer)].strip()
        return thought.removeprefix(_OPEN).removesuffix(_CLOSE).strip(), answer.lstrip()
    block = answer_block(completion)
    if block is None or not block.code.strip():
        return None
    around = [completion[: block.start].strip(), completion[block.stop :].strip()]
    return "\n\n".join(part for part in around if part), completion[block.start : block.stop]


def joined(reasoning: str, answer: str, *, marks: Marks) -> str:
    """A completion of reasoning and answer, in the form that `split_reasoning` reads."""
    if marks == "think":
        return f"{_OPEN}\n{reasoning}\n{_CLOSE}\n\n{answer}"
    return f"{reasoning}\n\n{answer}"
