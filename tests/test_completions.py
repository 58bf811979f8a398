"""Reading completions: which block is the answer, what is thinking, and what is no code at all."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recontext_data.core.completions import Marks, after_thinking, answer_block, blocks, joined, read_code, split_reasoning

CODE = "def f(n):\n    return n\n"
BLOCK = f"```python\n{CODE}```"


def code(text: str) -> str | None:
    return read_code(text, entry_point="f").code


def reason(text: str) -> str:
    found = read_code(text, entry_point="f")
    assert found.code is None
    return found.reason


@pytest.mark.parametrize(
    "text",
    [
        BLOCK,
        f"Here it is:\n\n{BLOCK}\n\nIt passes.",
        f"```\n{CODE}```",
        f"```py\n{CODE}```",
        f"```Python3 title=x\n{CODE}```",
        f"~~~python\n{CODE}~~~",
        f"````python\n{CODE}````",
        f"````python\n{CODE}`````",
        f"  ```python\n{CODE}  ```",
        f"```python\n{CODE}```   ",
        f"<think>\n```python\ndef f(n): return 0\n```\n</think>\n{BLOCK}",
        f"a thought without its opening tag</think>\n{BLOCK}",
        f"```python\ndef f(n): return 0\n```\nNo, better:\n{BLOCK}",
        f"{BLOCK}\nRun it:\n```sh\npython f.py\n```\nIt prints:\n```text\n3\n```",
        f"{BLOCK}\nAnd once more:\n```python\ndef f(n): return ",
        f"I use ```f``` and `f`.\n{BLOCK}",
    ],
)
def test_the_last_complete_python_block_is_the_answer(text: str) -> None:
    assert code(text) == CODE


def test_the_indent_of_the_fence_is_no_part_of_the_code() -> None:
    assert code("1. First:\n\n   ```python\n   def f(n):\n       return n\n   ```\n") == CODE


def test_a_fence_inside_of_the_code_does_not_end_it() -> None:
    inner = 'def f(n):\n    """Example:\n\n    ```\n    f(1)\n    ```\n    """\n    return n\n'
    assert code(f"```python\n{inner}```") == inner  # indented by four columns: no closing fence
    tilde = "def f(n):\n    '''\n~~~\n    '''\n    return n\n"
    assert code(f"```python\n{tilde}```") == tilde
    assert code(f"````python\n{CODE}# ```\n```\n````") == f"{CODE}# ```\n```\n"


def test_windows_line_ends_and_odd_separators_are_kept() -> None:
    assert code("```python\r\ndef f(n):\r\n    return n\r\n```\r\n") == "def f(n):\r\n    return n\r\n"
    odd = "def f(n):\n    return 'a\u2028```\x0c'\n"
    assert code(f"```python\n{odd}```") == odd


def test_text_without_a_fence_is_code_only_where_it_defines_the_function() -> None:
    assert code(CODE) == CODE
    assert code(f"import math\n\n{CODE}") == f"import math\n\n{CODE}"
    assert code("f = lambda n: n\n") == "f = lambda n: n\n"
    assert code("async def f(n): ...") is not None
    assert reason("I would write def f(n): return n, or so.") == "there is no code block"
    assert reason("def g(n):\n    return n\n") == "there is no code block"
    assert reason("f == 3") == "there is no code block"
    assert reason("") == "there is no code block"


def test_why_there_is_no_code_is_said() -> None:
    assert reason(f"```python\n{CODE}") == "the code block is not closed"
    assert reason("```sh\nls\n```") == "no code block is Python"
    assert reason("```python\n\n```") == "the last code block is empty"
    assert reason(f"<think>\n{BLOCK}") == "the thinking does not end"


def test_what_follows_the_thinking() -> None:
    assert after_thinking("plain") == "plain"
    assert after_thinking("<think>a</think>b") == "b"
    assert after_thinking("<think>a</think><think>b</think>c") == "c"
    assert after_thinking(" <think>a") is None
    assert after_thinking("<think>a</think>\n<think>b") is None
    assert after_thinking("The tag <think> is only mentioned.") == "The tag <think> is only mentioned."


def test_reasoning_and_answer_come_apart() -> None:
    assert split_reasoning("<think>\nwhy\n</think>\n\nanswer", marks="think") == ("why", "answer")
    assert split_reasoning("answer", marks="think") == ("", "answer")
    assert split_reasoning("<think>why", marks="think") is None
    assert split_reasoning("<think>why</think>  ", marks="think") is None
    assert split_reasoning(f"First.\n{BLOCK}\nThen.", marks="code") == ("First.\n\nThen.", BLOCK)
    assert split_reasoning(BLOCK, marks="code") == ("", BLOCK)
    assert split_reasoning("no code", marks="code") is None
    assert split_reasoning("```python\n\n```", marks="code") is None
    assert split_reasoning("anything", marks="beside") == ("", "anything")


@pytest.mark.parametrize("marks", ["think", "code"])
@given(reasoning=st.text(st.characters(exclude_characters="`~<>\r", exclude_categories=["Cs"]), max_size=60))
def test_what_is_joined_comes_apart_again(marks: Marks, reasoning: str) -> None:
    thought = reasoning.strip()
    assert split_reasoning(joined(thought, BLOCK, marks=marks), marks=marks) == (thought, BLOCK)


@given(st.lists(st.sampled_from(["```", "```python", "~~~", "````", "text", "    ```", "", "x = 1", "`a`"]), max_size=12))
def test_blocks_lie_in_the_text_in_order_and_only_the_last_is_open(lines: list[str]) -> None:
    text = "\n".join(lines)
    found = blocks(text)
    assert all(block.is_closed for block in found[:-1])
    assert all(first.stop <= second.start for first, second in itertools.pairwise(found))
    assert all(block.code in text for block in found)
    answer = answer_block(text)
    assert answer is None or (answer.is_closed and answer in found)


@given(st.text(max_size=80))
def test_no_text_is_too_odd_to_be_read(text: str) -> None:
    found = read_code(text, entry_point="f(*")
    assert (found.code is None) == bool(found.reason)
