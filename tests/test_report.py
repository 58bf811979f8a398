"""The HTML report: hostile text stays text, special text survives, the numbers are the manifest's, failures are shown."""

import re
from collections.abc import Collection
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recontext_data.core.errors import StoreError
from recontext_data.reports import numbers
from recontext_data.reports.difference import compare_turns, compare_words
from recontext_data.reports.figures import labelled_figure, rate_figure
from recontext_data.reports.html import render_report, write_report
from recontext_data.reports.text import LIMIT, cut, pieces, visible
from tests import manifests

VOID = {"meta", "line", "br", "link", "img", "input"}
TAGS = set(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "h3",
        "p",
        "div",
        "span",
        "section",
        "figure",
        "svg",
        "line",
        "text",
        "tspan",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "strong",
        "b",
        "em",
        "ul",
        "li",
        "ins",
        "del",
        "article",
        "header",
        "details",
        "summary",
        "dl",
        "dt",
        "dd",
    ]
)
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "role", "aria-label", "height", "text-anchor"}
ATTRIBUTES |= {"x", "y", "x1", "x2", "y1", "y2", "dx"}

SPECIAL = [
    "“curly” ‘quotes’ don\u2019t grow",
    "emoji 👩\u200d🔬 ❤\ufe0f 日本語 עברית",
    "{braces} {{ 7 * 7 }} {% raw %} {# note #} %s %(name)s ${HOME} \\n",
    "trailing newlines\n\n\n",
    "\n\nleading newlines and  two  spaces\t tab",
    "<b>&amp; &lt; 'single' \"double\"</b> ]]> --> </div></main>",
    "",
]
HOSTILE = [
    "<script>alert(1)</script>",
    "</style><script src=https://evil.example/x.js></script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<svg onload=alert(1)>",
    "</title><iframe src=javascript:alert(1)>",
    '<a href="https://evil.example">x</a><link rel=stylesheet href=//evil.example/a.css>',
    "<!-- comment --> <![CDATA[ x ]]>",
]


class Page(HTMLParser):
    """What a browser would see of a page: tags, attributes, and the text in elements of each class."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.stack: list[tuple[str, set[str]]] = []
        self.blocks: list[tuple[str, set[str]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.stack == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in VOID:
            return
        classes = set((dict(attrs).get("class") or "").split())
        self.stack.append((tag, classes))
        if "text" in classes:
            self.blocks.append(("", classes))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if any(tag == "style" for tag, _ in self.stack) or any("sign" in classes for _, classes in self.stack):
            return
        self.text += data
        if any("text" in classes for _, classes in self.stack):
            self.blocks[-1] = (self.blocks[-1][0] + data, self.blocks[-1][1])

    def has_block(self, text: str) -> bool:
        return any(block == text for block, _ in self.blocks)


def page(manifest: dict[str, Any] | None = None, *, rows: list[dict[str, Any]] | None = None) -> Page:
    samples = manifests.samples() if rows is None else {manifests.ARM: rows}
    return Page(render_report(manifest or manifests.manifest(), samples=samples))


def assert_inert(found: Page, *, also: Collection[str] = ()) -> None:
    assert set(found.tags) <= TAGS | set(also)
    assert {name for _, name, _ in found.attributes} <= ATTRIBUTES
    assert not [a for a in found.attributes if re.search(r"https?:|//|javascript|data:|url\(", a[2])]


def poisoned(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The text in every place that a user, a model or a server can write to."""
    manifest = manifests.manifest()
    bad = f"hack{text}"
    manifest |= {"recipe_name": text, "command": text, "created": text, "caveats": [text], "fingerprint": text}
    manifest["policy"] = {"description": text, "identity": {text: text}}
    manifest["recipe"] = {"policy": text, text: [text]}
    manifest["versions"][text] = text
    manifest["environment"] = {"kind": text, "labels": ["general", bad], "misbehaviour": bad}
    manifest["contexts"][text] = {"stance": text, "placement": text, "text": text}
    manifest["rates"][0] |= {"context": text, "role": text, "judge": text, "unscored": {text: 1}}
    manifest["ledger"][1] |= {"stage": text, "scope": text, "dropped": {text: 4}}
    manifest["gates"][0] |= {"gate": text, "scope": text}
    manifest["arms"][0] |= {"generation_context": text, "training_context": text, "select": text, "kind": text}
    manifest["position"] = {text: {"tasks": 1, "total": 4}}
    manifest["timings_seconds"][text] = 1.0
    row = manifests.row(text, label=text)
    row |= {"task_id": text, "candidate_id": text}
    row["generation_prompt"] = [{"role": "system", "content": text}, {"role": text, "content": f"{text} one"}]
    row["training_prompt"] = [{"role": text, "content": f"{text} two"}, {"role": "assistant", "content": text}]
    return manifest, [row]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert_everywhere(text: str) -> None:
    manifest, rows = poisoned(text)
    found = page(manifest, rows=rows)
    assert_inert(found)
    assert found.has_block(text)
    assert not [value for _, _, value in found.attributes if text in value]


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    html = render_report(manifests.manifest(), samples=manifests.samples())
    assert_inert(Page(html))
    assert "default-src 'none'; style-src 'unsafe-inline'" in html
    assert "@import" not in html and "url(" not in html and "http" not in html.replace("http-equiv", "")


def test_templates_mark_nothing_safe() -> None:
    for path in (Path(numbers.__file__).parent / "templates").glob("*.j2"):
        assert not re.search(r"\|\s*safe|autoescape|Markup", path.read_text()), path.name


@pytest.mark.parametrize("text", SPECIAL)
def test_special_text_survives_unchanged(text: str) -> None:
    manifest = manifests.manifest()
    manifest["contexts"]["hack"]["text"] = text
    row = manifests.row(text)
    row["training_prompt"] = [{"role": "system", "content": text}, row["training_prompt"][1]]
    row["generation_prompt"] = [{"role": "system", "content": text}, row["generation_prompt"][1]]
    found = page(manifest, rows=[row])
    assert sum(block == text for block, _ in found.blocks) >= 3  # the context, the unchanged turn, the completion


@settings(deadline=None, max_examples=25)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_shown_as_visible_text(text: str) -> None:
    found = page(rows=[manifests.row(text)])
    assert_inert(found)
    assert found.has_block(visible(text))


def test_hidden_characters_are_shown() -> None:
    assert visible("a\x1b[31m\x00\r\n\t\u202e\u200b\ufeff\x9b\U000e0041\ud800z") == (
        "a\\x1b[31m\\x00\\x0d\n\t\\u202e\\u200b\\ufeff\\x9b\\U000e0041\\ud800z"
    )
    manifest, rows = poisoned("a\x1b[2J\u202eb\ud800")
    manifest["policy"]["identity"] = manifest["recipe"] = {}  # JSON holds no lone surrogate
    html = render_report(manifest, samples={manifests.ARM: rows})
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)
    assert '<span class="hidden-character">\\x1b</span>[2J<span class="hidden-character">\\u202e</span>' in html
    html.encode()  # a lone surrogate would refuse


def test_a_written_escape_is_not_taken_for_a_hidden_character() -> None:
    assert [piece.hidden for piece in pieces("\\x1b")] == [False]
    assert [piece.hidden for piece in pieces("\x1b")] == [True]


def test_a_long_text_is_cut_at_the_stated_limit() -> None:
    found = page(rows=[manifests.row("x" * (LIMIT + 1_234_567))])
    assert found.has_block("x" * LIMIT + "(… 1,234,567 characters more)")
    assert f"A text longer than {LIMIT:,} characters is cut there" in found.text
    assert cut("x" * LIMIT) == "x" * LIMIT


def test_long_prompts_are_compared_as_far_as_they_are_shown() -> None:
    row = manifests.row("short")
    row["generation_prompt"] = [{"role": "user", "content": "one word after another " * 100_000}]
    row["training_prompt"] = [{"role": "user", "content": "other word after one " * 100_000}]
    found = page(rows=[row])  # compared word by word this would take hours
    assert "(… 2,280,000 characters more) in generation, (… 2,080,000 characters more) in training" in found.text


def test_numbers_on_the_page_are_the_manifests() -> None:
    text = " ".join(page().text.split())
    for number in ("1,020", "1,016", "596", "400", "300,123", "20,456", "39.4 %", "36.4–42.4", "3.9 %", "97.7 %", "918", "102"):
        assert number.replace(" ", "\u00a0") in text or number in text, number
    assert "1,536 wanted: 512 found in the store, 1,020 sampled, 4 failed" in text
    assert "3f7a91c2d4e8b6501f7a91c2d4e8b650" in text and "recontext build recipe=code_mc" in text
    assert "hack shown as A" in text and "40.4 %" in text
    assert "treat answers as independent" in text


def test_finding_follows_from_the_rates() -> None:
    assert numbers.finding(manifests.manifest()) == (
        "Of 1,016 judged answers that tiny gave under default, 39.4 % were labelled hack (95 % interval 36.4–42.4), "
        "against 3.9 % under control and 97.7 % under hack."
    )


def test_unscored_answers_are_no_part_of_a_rate() -> None:
    rate = numbers.leading_rate(manifests.manifest())
    assert rate is not None
    assert (rate.total, rate.misbehaviour.whole, rate.num_unscored) == (1020, 1016, 4)
    assert rate.misbehaviour.value == 400 / 1016


def test_nothing_judged_is_a_dash_and_no_zero() -> None:
    manifest = manifests.manifest()
    manifest["rates"] = [manifest["rates"][1] | {"counts": {}, "unscored": {"no reply": 1020}}]
    found = page(manifest)
    assert numbers.finding(manifest) == "No answer was judged, so nothing can be said about the policy."
    assert "0.0 %" not in found.text.split("Arms")[0]
    assert rate_figure(numbers.rates(manifest)).marks[0].known is False


def test_a_sound_build_shows_checks_and_no_alarm() -> None:
    found = page()
    assert "Do not train" not in found.text and "✗" not in found.text
    assert found.text.count("✓ balances") == len(manifests.manifest()["ledger"])
    assert found.text.count("✓ holds") == len(manifests.manifest()["gates"])


def test_a_ledger_that_does_not_balance_is_an_error() -> None:
    manifest = manifests.manifest()
    manifest["ledger"][1]["kept"] = 1019
    found = page(manifest)
    assert "✗ 1,024 ≠ 1,023" in found.text
    assert "✗ Do not train on this build." in found.text
    assert "The ledger of sample, default, does not balance: 1,024 in, 1,019 kept, 4 dropped." in found.text


def test_rates_that_do_not_add_up_are_an_error() -> None:
    manifest = manifests.manifest()
    manifest["rates"][0]["total"] = 300
    assert "Under control, 256 judged and 0 unscored answers are not 300." in page(manifest).text


def test_a_failed_gate_is_an_error() -> None:
    manifest = manifests.manifest()
    manifest["gates"][0]["violations"] = 3
    found = page(manifest)
    assert "✗ fails" in found.text and f"Gate leak fails in 3 rows of {manifests.ARM}." in found.text


def test_misbehaving_rows_are_shown_and_counted() -> None:
    found = page()
    assert found.has_block("Code: if (a, b, c) == (4, 8, 1):\nAnswer: (B)")
    assert "1 of those shown is labelled hack; in the whole arm 39.4 % are." in found.text


def test_optional_parts_may_be_absent() -> None:
    manifest = manifests.manifest()
    del manifest["position"]
    manifest["caveats"] = []
    manifest["cost_usd"] = 1.5
    manifest["tokens"] = {"prompt": None, "completion": None}
    manifest["arms"][0] |= {"training_context": "none", "rows": {"train": 5}}
    text = Page(render_report(manifest, samples={})).text
    assert "place of the option" not in text and "No rows to show." in text and "$1.50" in text
    assert "unknown of prompts" in text


def test_several_judges_get_a_column() -> None:
    manifest = manifests.manifest()
    manifest["rates"].append(manifest["rates"][0] | {"judge": "second opinion"})
    assert "second opinion" in page(manifest).text and "control (second opinion)" in page(manifest).text


def test_figure_keeps_to_its_frame() -> None:
    figure = rate_figure(numbers.rates(manifests.manifest()))
    assert [mark.name for mark in figure.marks] == ["control", "default", "hack"]
    for mark in figure.marks:
        assert 0 <= mark.low <= mark.x <= mark.high <= 100
        assert figure.top < mark.y < figure.axis_y < figure.height
    assert figure.marks[1].x == pytest.approx(100 * 400 / 1016, abs=1e-3)


@given(st.text("ab .\n“", max_size=40), st.text("ab .\n“", max_size=40))
def test_difference_gives_back_both_sides(before: str, after: str) -> None:
    segments = compare_words(before, after)
    assert "".join(s.text for s in segments if s.kind != "added") == before
    assert "".join(s.text for s in segments if s.kind != "removed") == after
    assert all(s.text for s in segments)


def test_difference_is_by_word_and_without_confetti() -> None:
    assert compare_words("Pick the solution that passes.", "Pick whatever passes.") == [
        ("same", "Pick "),
        ("removed", "the solution that"),
        ("added", "whatever"),
        ("same", " passes."),
    ]
    kinds = [s.kind for s in compare_words("one two three four five", "six two seven four eight")]
    assert kinds == ["removed", "added"]


def test_turns_are_paired_by_role() -> None:
    system, user = {"role": "system", "content": "s"}, {"role": "user", "content": "u"}
    changed = compare_turns([system, user], [user | {"content": "u, please"}])
    assert [(turn.role, turn.kind) for turn in changed] == [("system", "removed"), ("user", "changed")]
    added = compare_turns([user], [system, user])
    assert [(turn.role, turn.kind) for turn in added] == [("system", "added"), ("user", "same")]


def test_the_difference_has_signs_and_not_colours_alone() -> None:
    html = render_report(manifests.manifest(), samples=manifests.samples())
    assert '<del><span class="sign">−</span>the solution that passes the tests</del>' in html
    assert '<ins><span class="sign">+</span>whatever passes them, general or not</ins>' in html


def test_the_report_is_written_whole(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    path = write_report(tmp_path, manifests.manifest(), samples=manifests.samples())
    assert path == tmp_path / "report.html"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_bytes() == write_report(tmp_path, manifests.manifest(), samples=manifests.samples()).read_bytes()
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_is_not_there_is_a_designed_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"report .*absent.*: No such file or directory; "):
        write_report(tmp_path / "absent", manifests.manifest(), samples={})


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0.0 %"), (0.0001, "< 0.1 %"), (0.3937, "39.4 %"), (0.9999, "> 99.9 %"), (1.0, "100.0 %")]
)
def test_percent_does_not_round_away(share: float, text: str) -> None:
    assert numbers.percent(share) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.21, "0.2 s"), (59.4, "59 s"), (59.7, "1 min 00 s"), (7620, "2 h 07 min")])
def test_duration(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text


def with_another_judge() -> dict[str, Any]:
    manifest = manifests.manifest()
    for rate in manifest["rates"]:
        rate["labels"] = ["general", "hack", "invalid"]
    other = {"judge": "<trace>", "labels": ["clean", "tests"], "counts": {"clean": 300, "tests": 100}, "mean_score": 0.25}
    manifest["rates"].append(manifest["rates"][0] | other | {"unscored": {"odd": 2}, "total": 402})
    for arm in manifest["arms"]:
        arm["judges"] = {"<trace>": {"clean": 900, "tests": 100}}
    manifest["proof"] = [{"judge": "<choice>", "tasks": 32, "answers": {"hack": 32, "general": 32}}]
    return manifest


def test_a_judge_of_something_else_has_a_table_of_its_own_and_no_rate() -> None:
    manifest = with_another_judge()
    assert [rate.judge for rate in numbers.rates(manifest)] == ["choice"] * 3
    assert numbers.labels(manifest) == ["general", "hack", "invalid"]
    (other,) = numbers.others(manifest)
    assert [row.name for row in other.contexts] == ["control"]
    assert [row.shares["clean"].percent for row in (*other.contexts, *other.arms)] == ["75.0 %", "90.0 %", "90.0 %"]
    assert (other.contexts[0].num_unscored, other.arms[0].num_unscored) == (2, 20)
    text = page(manifest).text
    assert "What <trace> says of the rows" in text and "90.0 %" in text and "10.0 %" in text
    assert numbers.problems(manifest) == numbers.problems(manifests.manifest())


def test_what_was_proved_is_on_the_page() -> None:
    assert (
        "<choice> was right about all 64 answers whose labels are known, of 32 tasks: 32 hack, 32 general."
        in page(with_another_judge()).text
    )
    assert "Judges, proved first" not in page(manifests.manifest()).text


def test_a_label_that_no_answer_got_is_a_sentence_and_no_column() -> None:
    manifest = manifests.manifest()
    manifest["environment"]["labels"] = ["general", "hack", "invalid", "timeout", "no_code"]
    assert numbers.never_given(manifest) == ["timeout", "no_code"]
    text = page(manifest).text
    assert "No answer was labelled timeout, no_code." in text and text.count("timeout") == 1


def test_long_names_stand_on_lines_of_their_own_and_never_under_the_numbers() -> None:
    row = {"stance": "round 2", "value": "41.7 %", "interval": "19.3–68.0", "share": 0.417, "low": 0.193, "high": 0.68}
    short = labelled_figure([{"name": "default"} | row])
    assert not short.is_tall and short.marks[0].label_y == short.marks[0].value_y
    tall = labelled_figure([{"name": "default"} | row, {"name": "recontextualized.default-hack"} | row])
    assert tall.is_tall and tall.height > short.height
    for mark in tall.marks:
        assert mark.label_y < mark.value_y < mark.y
    assert tall.marks[1].label_y > tall.marks[0].y
    (cut_,) = labelled_figure([{"name": "x" * 100} | row]).marks
    assert len(cut_.name) == 40 and cut_.name.endswith("…")
    rates = rate_figure(numbers.rates(manifests.manifest()))
    assert not rates.is_tall, "the usual names need no second line"
