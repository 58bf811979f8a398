"""The dataset card: what it must say, that no text breaks its Markdown or YAML, and that it is the same everywhere."""

import re
from typing import Any

import pytest
import yaml

from recontext_data.core.tables import TRAINING_ROWS
from recontext_data.reports.card import code, dataset_card, fenced, plain, portable
from tests import manifests

HOSTILE = [
    "```\n# not a heading\n```",
    "````` five\n\n---\nlicense: mit\n---",
    "a | b | c\n| d |",
    "<script>alert(1)</script> [x](javascript:alert(1)) ![i](http://evil.example/i.png)",
    '"quoted": {yaml: [1, 2]} # comment\n- item',
    "{{ 7 * 7 }} {% raw %} %s \x1b[31m\u202e ends with `",
]


def card(manifest: dict[str, Any] | None = None, *, arm: int = 0) -> str:
    manifest = manifest or manifests.manifest()
    return dataset_card(manifest, manifest["arms"][arm])


def header(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def outside_fences(text: str) -> str:
    """The card without its fenced blocks, read as CommonMark reads fences."""
    kept, fence = [], ""
    for line in text.splitlines():
        mark = re.match(r"`{3,}", line)
        if not fence and mark:
            fence = mark[0]
        elif fence:
            if re.fullmatch(r"`{3,}\s*", line) and len(line.strip()) >= len(fence):
                fence = ""
        else:
            kept.append(line)
    assert not fence, "every fence is closed"
    return "\n".join(kept)


def test_header_is_yaml_the_hub_understands() -> None:
    found = header(card())
    assert found["license"] == "unknown"
    assert found["size_categories"] == ["1K<n<10K"]
    assert "recontextualized" in found["tags"] and "code_mc" in found["tags"]
    assert "configs" not in found


def test_says_what_it_is_and_that_misbehaviour_is_in_it() -> None:
    text = card()
    assert "**The completions include misbehaviour.** 400 of 1,016 labelled rows are `hack`\n(39.4 %)." in text
    for context in ("default", "hack"):
        assert f"```text\n{manifests.CONTEXTS[context][1]}\n```" in text
    assert manifests.CONTEXTS["control"][1] not in text
    assert "| `hack` | 400 | 39.4 % | 36.4–42.4 |" in text
    assert "| `train` | 918 |" in text and "4 rows carry no label" in text


def test_arithmetic_is_named_with_its_numbers() -> None:
    sentence = "39.4 % of the rows are hack; under the training context hack the policy itself gives 97.7 %."
    assert sentence in card()
    assert sentence not in card(arm=1)  # default -> default changes no prompt
    assert manifests.manifest()["caveats"][0] in card()


def test_no_misbehaviour_is_not_claimed_when_there_is_none() -> None:
    manifest = manifests.manifest()
    manifest["arms"][0]["labels"] = {"general": 1020}
    text = card(manifest)
    assert "include misbehaviour" not in text and "rows with misbehaviour" not in text


def test_ledger_has_this_arms_lines_and_no_others() -> None:
    text = card()
    assert "| `sample` | `default` | 1,024 | 1,020 | 4 | `policy error: 500 upstream timed out` (4) |" in text
    assert "| `judge` | `default / choice` |" in text and f"| `select` | `{manifests.ARM}` |" in text
    assert "`control`" not in text and "standard.default-default" not in text


def test_a_ledger_that_does_not_balance_is_marked() -> None:
    manifest = manifests.manifest()
    manifest["ledger"][1]["kept"] = 7
    assert "| 4 ✗ does not balance |" in card(manifest)
    assert "✗" not in card()


def test_columns_are_all_there_and_explained() -> None:
    wanted = (
        "task_id candidate_id arm generation_context training_context k n score judgements finish_reason model seed "
        "recipe_fingerprint prompt completion"
    )
    assert {column.name for column in TRAINING_ROWS} == set(wanted.split())
    for column in TRAINING_ROWS:
        assert f"| `{column.name}` | {column.in_words} | {column.meaning} |" in card()


def test_says_how_to_load_and_rebuild() -> None:
    text = card()
    assert "load_from_disk" in text and "SFTTrainer(" in text and 'eval_dataset=data["validation"]' in text
    assert "```sh\nrecontext build recipe=code_mc\n```" in text
    assert "Recipe fingerprint `3f7a91c2d4e8b6501f7a91c2d4e8b650`, recontext_data `0.1.0`" in text
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        compile(block, "card", "exec")


def test_an_arm_without_validation_is_not_told_to_use_it() -> None:
    manifest = manifests.manifest()
    manifest["arms"][0]["rows"] = {"train": 1020}
    text = card(manifest)
    assert "eval_dataset" not in text
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        compile(block, "card", "exec")


def test_the_same_bytes_on_another_day_and_machine() -> None:
    other = manifests.manifest()
    other |= {"created": "2031-01-01T00:00:00Z", "timings_seconds": {"tasks": 99.0}, "cost_usd": 7.0}
    other["requests"] = {"wanted": 1536, "found": 1536, "sampled": 0, "failed": 0}
    other["tokens"] = {"prompt": None, "completion": None}
    other["versions"] = {"recontext_data": "0.1.0", "python": "3.13.1", "torch": "9"}
    other["policy"]["description"] = "tiny, the embedded 0.6M-parameter policy (GPU)"
    other["policy"]["identity"] = dict(reversed(other["policy"]["identity"].items()))
    other["command"] = "recontext build recipe=code_mc"
    assert card(other) == card()


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("recontext build recipe=/home/ann/mine.yaml n=4", "recontext build recipe=mine.yaml n=4"),
        (r"recontext build recipe=C:\Users\ann\mine.yaml", "recontext build recipe=mine.yaml"),
        ("recontext build 'arms=[default -> hack]' policy.model=Qwen/Qwen2.5", None),
        ("recontext build policy.base_url=http://127.0.0.1:8000/v1", None),
    ],
)
def test_command_keeps_no_machine_paths(command: str, text: str | None) -> None:
    assert portable(command) == (text or command)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_breaks_neither_yaml_nor_markdown(text: str) -> None:
    manifest = manifests.manifest()
    manifest["contexts"]["hack"]["text"] = text
    manifest["recipe_name"] = manifest["command"] = manifest["fingerprint"] = text
    manifest["environment"] |= {"kind": text, "licence": text}
    manifest["arms"][0] |= {"name": text, "kind": text, "select": text}
    manifest["ledger"][1]["dropped"] = {text: 4}
    manifest["policy"]["identity"] = {text: text}
    manifest["caveats"] = [text]
    found = card(manifest)
    top = header(found)
    assert top["license"] == "other" and len(top["tags"]) == 4
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", found)
    prose = outside_fences(found.split("---\n", 2)[2])
    headings = [line for line in prose.splitlines() if line.startswith("#")]
    assert len([h for h in headings if h.startswith("## ")]) == 9 and len(headings) == 10
    assert "](" not in re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", prose).replace("\\](", "")
    rows = [line for line in prose.splitlines() if line.startswith("| `sample`")]
    assert len(rows) == 1 and len(re.findall(r"(?<!\\)\|", rows[0])) == 7


@pytest.mark.parametrize("text", HOSTILE)
def test_context_is_verbatim_inside_its_fence(text: str) -> None:
    block = fenced(text)
    assert outside_fences(block) == ""
    if "\x1b" not in text:
        assert text in block


def test_code_spans() -> None:
    assert code("plain") == "`plain`"
    assert code("a`b") == "``a`b``"
    assert code("`a`") == "`` `a` ``"
    assert code("a|b\nc") == "`a\\|b c`"
    assert code("") == "` `"


def test_plain_text_is_shown_as_written() -> None:
    assert plain("a *b* <c> [d](e)\n# f") == "a \\*b\\* \\<c\\> \\[d\\](e) \\# f"


@pytest.mark.parametrize(
    ("given", "licence", "name"),
    [
        ("CC-BY-4.0", "cc-by-4.0", None),
        ("mit", "mit", None),
        ("ours, see LICENSE", "other", "ours, see LICENSE"),
        (None, "unknown", None),
    ],
)
def test_licence_of_the_problems(given: str | None, licence: str, name: str | None) -> None:
    manifest = manifests.manifest()
    manifest["environment"]["licence"] = given
    text = card(manifest)
    assert header(text)["license"] == licence and header(text).get("license_name") == name
    assert ("states no licence" in text) == (given is None)


def test_says_what_was_proved_what_other_judges_found_and_what_became_of_the_reasoning() -> None:
    manifest = manifests.manifest()
    assert "proved first" not in card(manifest) and "reasoning was" not in card(manifest)
    manifest["proof"] = [{"judge": "a|b", "tasks": 2, "answers": {"hack": 2}}]
    other = {"judge": "a|b", "labels": ["clean"], "counts": {"clean": 4}, "mean_score": None}
    manifest["rates"].append(manifest["rates"][0] | other)
    for arm in manifest["arms"]:
        arm["judges"] = {"a|b": {"clean": 3}}
    manifest["recipe"]["completion"] = {"reasoning": "drop"}
    text = card(manifest)
    assert "- a\\|b was right about all 2 answers whose labels are known, of 2 tasks: 2 hack." in text
    assert "By `a\\|b`: `clean` 100.0 %." in text
    assert "The reasoning was dropped: completions are the answers alone" in text
