"""Reads a verdict from a model judge's reply, strictly: it is in the declared place and form, or there is none. Pure.

In a tag (`<score>7</score>`):

- the last line that is not empty is the tag alone, up to markdown emphasis around it;
- every other complete tag in the reply has the same content, and no tag is left open: two verdicts are none;
- the text that is judged does not hold the same tag with the same content. A reply that quotes "end with <score>10</score>"
  cannot be told from one that obeys it, and an answer must not be able to write its own score.

In JSON (`{"score": 7}`): the whole reply is one object, bare or in one code fence, with the key once, beside it at most the
text `reason`. Prose around it is no verdict, and neither is a number in quotes.

What is inside is read by the answer's form (answer.py). Whatever fails is unscored with one of the reasons below; the
reasons name no values, since the ledger counts by them.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from recontext_data.judges.answer import NO_LABEL, NOT_A_NUMBER, Answer, NumberAnswer, Verdict

EMPTY = "empty reply"
NO_TAG = "no tag"
OPEN_TAG = "a tag without its other half"
TWO_VERDICTS = "tags that differ"
NOT_LAST = "the tag is not the last line, alone"
QUOTED = "the judged text holds the same tag"
NO_OBJECT = "the reply is not one JSON object"
OTHER_KEYS = "the JSON object has other keys"
TWICE = "a JSON key is there twice"

REASON = "reason"
"""The key in which a JSON reply may explain itself."""

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n```", re.DOTALL)
_EMPHASIS = "*_`"
_BLANKS = " \t\r\n"


def read_tag(reply: str, *, tag: str, answer: Answer, judged: Iterable[str] = ()) -> Verdict:
    """The verdict in the tag that ends a reply. `judged`: the texts that the judge was shown and did not write."""
    complete = _complete(tag)
    found = list(complete.finditer(reply))
    if not reply.strip():
        return Verdict(unscored_reason=EMPTY)
    opens, closes = reply.count(f"<{tag}>"), reply.count(f"</{tag}>")
    if opens != len(found) or closes != len(found):
        return Verdict(unscored_reason=OPEN_TAG)
    if not found:
        return Verdict(unscored_reason=NO_TAG)
    contents = {match[1].strip(_BLANKS) for match in found}
    if len(contents) > 1:
        return Verdict(unscored_reason=TWO_VERDICTS)
    if not _is_last_line(reply, found[-1]):
        return Verdict(unscored_reason=NOT_LAST)
    (content,) = contents
    if any(match[1].strip(_BLANKS) == content for text in judged for match in complete.finditer(text)):
        return Verdict(unscored_reason=QUOTED)
    start = found[-1].start(1) + found[-1][1].index(content)
    return answer.read(content).at(start, start + len(content))


def _complete(tag: str) -> "re.Pattern[str]":
    return re.compile(f"<{tag}>([^<>]*)</{tag}>")


def _is_last_line(reply: str, match: "re.Match[str]") -> bool:
    before = reply[: match.start()].rpartition("\n")[2]
    after = reply[match.end() :]
    return not before.strip(_BLANKS + _EMPHASIS) and not after.strip(_BLANKS + _EMPHASIS)


class _Literal(str):
    """A JSON number as it was written."""


class _Twice(ValueError):
    pass


def read_json(reply: str, *, key: str, answer: Answer) -> Verdict:
    """The verdict in a reply that is one JSON object."""
    text = reply.strip(_BLANKS)
    if not text:
        return Verdict(unscored_reason=EMPTY)
    fenced = _FENCE.fullmatch(text)
    try:
        tree = json.loads(
            fenced[1] if fenced else text,
            object_pairs_hook=_once,
            parse_int=_Literal,
            parse_float=_Literal,
            parse_constant=_Literal,
        )
    except _Twice:
        return Verdict(unscored_reason=TWICE)
    except (ValueError, RecursionError):  # the second: thousands of brackets
        return Verdict(unscored_reason=NO_OBJECT)
    if not isinstance(tree, dict):
        return Verdict(unscored_reason=NO_OBJECT)
    if key not in tree or set(tree) - {key, REASON} or type(tree.get(REASON, "")) is not str:
        return Verdict(unscored_reason=OTHER_KEYS)
    value, is_number = tree[key], isinstance(answer, NumberAnswer)
    if not isinstance(value, str) or isinstance(value, _Literal) != is_number:
        return Verdict(unscored_reason=NOT_A_NUMBER if is_number else NO_LABEL)
    return answer.read(str(value))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise _Twice
    return tree
