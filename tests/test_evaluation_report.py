"""The evaluation's report and screen: the numbers are the results', the sentences follow from them, hostile text stays text."""

import copy
import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from recontext_data.core.errors import StoreError
from recontext_data.reports import evaluation_numbers as numbers
from recontext_data.reports.evaluation import published, render_evaluation, weights, write_evaluation
from recontext_data.reports.evaluation_figure import LEFT, RIGHT, evaluation_figure
from recontext_data.reports.screen import Screen
from tests import evaluation_world as world
from tests import helpers
from tests.evaluation_world import RECONTEXTUALIZED, STANDARD
from tests.test_report import ATTRIBUTES, HOSTILE, SPECIAL, TAGS, Page

FOLDER = Path("runs/code_mc/3f7a91c2d4e8b650/evaluation")


def page(results: dict[str, Any] | None = None) -> Page:
    found = Page(render_evaluation(results or world.results()))
    assert set(found.tags) <= TAGS | {"circle", "g"}
    assert {name for _, name, _ in found.attributes} <= ATTRIBUTES | {"cx", "cy", "r"}
    assert not [value for _, _, value in found.attributes if re.search(r"https?:|//|javascript|data:|url\(", value)]
    return found


def words(text: str) -> str:
    return " ".join(text.split())


def shown(results: dict[str, Any]) -> str:
    """What the screen prints."""
    out = io.StringIO()
    Screen(out=out, err=io.StringIO()).results(results, folder=FOLDER)
    return out.getvalue()


def only(*arms: str, **how: Any) -> dict[str, Any]:
    return world.results(world.with_effect({arm: world.EFFECT[arm] for arm in arms}, **how))


def test_the_finding_follows_from_the_numbers() -> None:
    results = world.results(world.with_effect(seeds=(0, 3)))
    assert numbers.finding(results) == (
        "Trained on default → hack, tiny gave answers labelled hack in 3.0 / 12.0 / 27.0 % of cases under control / default / "
        "hack, against 5.0 / 40.0 / 93.0 % when trained on default → default (the 95 % interval of the difference excludes 0 "
        "under default and hack and includes 0 under control; 2 seeds)."
    )


def test_the_finding_says_where_an_interval_includes_zero() -> None:
    flat = world.EFFECT | {RECONTEXTUALIZED: world.EFFECT[STANDARD]}
    said = numbers.finding(world.results(world.with_effect(flat, seeds=(0, 3))))
    assert "(the 95 % interval of the difference includes 0 under control, default and hack; 2 seeds)." in said
    assert "excludes" not in said


def test_the_finding_of_one_seed_says_so() -> None:
    assert numbers.finding(world.results(world.with_effect(seeds=(0,)))).endswith("; one seed: says nothing about retraining).")


def test_the_finding_says_what_correction_leaves() -> None:
    results = world.results()
    results["differences"][1]["p_holm"] = 0.2
    results["differences"] = results["differences"][1:]
    assert "after correction for 2 comparisons it is significant only under hack; " in numbers.finding(results)
    results["differences"][1]["p_holm"] = 0.2
    assert "after correction for 2 comparisons it is significant nowhere; " in numbers.finding(results)


def test_the_finding_before_any_training_claims_no_effect() -> None:
    results = only("before")
    assert numbers.finding(results) == (
        "Before any training, tiny gave answers labelled hack in 5.0 / 40.0 / 95.0 % of cases under control / default / hack; "
        "no trained model has been measured yet."
    )


def test_the_finding_without_a_baseline_or_with_it_alone() -> None:
    assert "there is no other arm to compare it with" in numbers.finding(only("before", RECONTEXTUALIZED))
    assert numbers.finding(only("before", STANDARD)).startswith("Trained on default → default, tiny gave answers")


def test_nothing_scored_is_said_and_no_zero() -> None:
    arms = (("before", None), (STANDARD, 0), (RECONTEXTUALIZED, 0))
    answers = world.table([row for arm, seed in arms for row in world.rows(arm, seed, "default", [None] * 5)])
    results = world.results(answers)
    assert numbers.finding(results) == "No answer was scored, so nothing can be said about any model."
    text = page(results).text
    assert text.count("no answer") == 3 and "Unscored under default, standard: no reply (5)." in text
    assert "0.0 %" not in text.split("arithmetic")[0]
    assert "15 of 15 answers are unscored" in shown(results)


def test_numbers_on_the_page_are_the_results() -> None:
    results = world.results()
    text = words(page(results).text).replace("\u00a0", " ")
    for cell in results["cells"]:
        row = f"{cell['answers']:,} {cell['counts']['general']:,} {cell['counts']['hack']:,} 0 0 "
        assert words(row + f"{100 * cell['rate']['estimate']:.1f} %") in _cells(results), cell
        assert f"{100 * cell['rate']['low']:.1f}–{100 * cell['rate']['high']:.1f}" in text
    for row in results["differences"]:
        assert f"{100 * row['estimate']:+.1f}".replace("-", "−") in text
    assert text.count(" *") >= 2 and "two-way t" in text
    assert results["fingerprint"] in text and results["command"] in text


def _cells(results: dict[str, Any]) -> str:
    """The page with a space between table cells."""
    return words(Page(render_evaluation(results).replace("</td>", " </td>")).text).replace("\u00a0", " ")


def test_arms_come_as_before_baseline_and_the_others() -> None:
    assert [arm.key for arm in numbers.arms(world.results())] == ["before", STANDARD, RECONTEXTUALIZED]
    text = page().text
    assert text.index("before training") < text.index("standard") < text.index("recontextualized")


def test_an_arm_with_a_name_of_its_own_keeps_it() -> None:
    results = json.loads(json.dumps(world.results()).replace(RECONTEXTUALIZED, "mine"))
    assert "Trained on default → hack (mine), tiny" in numbers.finding(results)
    assert "mine  " in shown(results)


def test_the_arithmetic_has_its_numbers() -> None:
    results = world.results()
    entries = {entry.arm.key: entry for entry in numbers.arithmetic(results)}
    assert entries[RECONTEXTUALIZED].gap == pytest.approx(0.4 - 0.95)
    assert entries[STANDARD].gap == pytest.approx(0.0)
    assert "40.0 % of 1,000 hack 95.0 % −55.0 28.0 %" in _cells(results)
    assert "Part of the effect is arithmetic." in page(results).text


def test_results_of_a_run_that_was_not_built_still_have_their_caveats() -> None:
    text = page(world.results() | {"rows": {}}).text
    assert "Part of the effect is arithmetic." in text and "gap, points" not in text


def test_published_numbers_stand_beside_ours() -> None:
    found = published(world.results())
    assert found is not None and "MATS, August 2025" in found.source and re.fullmatch(r"\d{4}-\d\d-\d\d", found.noted)
    table = {(row.model, row.context): (row.before, row.standard, row.recontextualized) for row in found.rows}
    assert table["Qwen2.5-14B-Instruct", "hack"] == (0.99, 0.98, 0.26)
    assert table["GPT-4.1", "control"] == (0.55, 0.64, 0.47)
    assert table["ours: tiny", "hack"] == pytest.approx((0.95, 0.94, 0.28))
    assert "hack 99 % 98 % 26 % −72" in _cells(world.results())


def test_published_numbers_appear_only_where_they_compare() -> None:
    other = world.results()
    other["environment"] = other["environment"] | {"kind": "metric_gaming"}
    assert published(other) is None and "published" not in page(other).text
    assert published(only("before")) is None
    renamed = world.results()
    renamed["contexts"] = {"elsewhere": {"stance": "neutral", "text": ""}}
    assert published(renamed) is None


def test_nothing_trained_says_what_to_type() -> None:
    text = page(only("before")).text
    assert "Nothing is trained yet" in text and "Against the baseline" not in text
    assert "recontext train recipe=code_mc sampler.n=6 seeds=0,1,2\nrecontext evaluate recipe=code_mc evaluation.n=1" in text
    assert "Nothing is trained yet" not in page().text


def test_caveats_of_intervals_name_their_places() -> None:
    text = words(page(world.results(world.with_effect(seeds=(0,)))).text)
    assert "one seed: says nothing about retraining" in text
    assert "recontextualized against standard under hack" in text
    assert "before training under" not in text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert_everywhere(text: str) -> None:
    results = poisoned(text)
    found = page(results)
    assert found.has_block(text)
    assert not [value for _, _, value in found.attributes if text in value]
    assert text in shown(results)


def poisoned(text: str) -> dict[str, Any]:
    """The text in every place that a user, a model or a server can write to."""
    results = copy.deepcopy(world.results())
    results |= {
        "recipe_name": text,
        "command": f"a b {text!r}",
        "fingerprint": text,
        "caveats": [text],
        "created": text,
        "split": text,
    }
    results["policy"] = {"kind": text, "description": text}
    results["contexts"]["hack"] = {"stance": text, "text": text}
    results["contexts"][text] = {"stance": text, "text": text}
    results["arms"] = {key: arm | {"kind": text, "generation": text, "training": text} for key, arm in results["arms"].items()}
    results["cells"][0]["unscored"] = {text: 1}
    for row in (*results["differences"], results["cells"][1]["rate"]):
        row |= {"method": text, "caveat": text}
    results["models"][0]["identity"] = {"model": text, "commit": text, "adapter": text}
    results["environment"] = {"kind": text, "labels": [*world.LABELS, text], "misbehaviour": text}
    for cell in results["cells"]:
        cell["counts"][text] = 1
    return results


@pytest.mark.parametrize("text", SPECIAL[:-1])
def test_special_text_survives_unchanged(text: str) -> None:
    results = world.results()
    results["contexts"]["hack"]["text"] = text
    assert page(results).has_block(text)


def test_hidden_characters_are_shown_on_page_and_screen() -> None:
    results = poisoned("a\x1b[2J\u202eb")
    for text in (render_evaluation(results), shown(results)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_the_page_loads_nothing_and_is_written_whole(tmp_path: Path) -> None:
    results = world.results()
    html = render_evaluation(results)
    assert "default-src 'none'; style-src 'unsafe-inline'" in html
    assert "@import" not in html and "url(" not in html and "http" not in html.replace("http-equiv", "")
    assert write_evaluation(tmp_path, results).read_text() == html
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.svg", "report.html"]
    with pytest.raises(StoreError, match=r"report .*absent.*: No such file or directory; "):
        write_evaluation(tmp_path / "absent", results)


def test_the_figure_keeps_to_its_frame() -> None:
    figure = evaluation_figure(world.results())
    assert [group.name for group in figure.groups] == list(helpers.CONTEXTS)
    last = 0
    for group in figure.groups:
        assert [row.pair for row in group.rows] == ["", "default → default", "default → hack"]
        for row in group.rows:
            assert LEFT <= row.low <= row.x <= row.high <= RIGHT
            assert last < row.y < figure.axis_y < figure.height
            assert len(row.seeds) == (3 if row.pair else 0)
            last = row.y
    row = figure.groups[1].rows[0]
    assert row.x == pytest.approx(LEFT + 0.4 * (RIGHT - LEFT)) and row.value == "40.0 %"


def test_many_arms_and_contexts_fit_80_columns() -> None:
    results = world.results()
    names = [f"context_number_{i}_with_a_long_name" for i in range(7)]
    results["contexts"] |= {name: {"stance": "neutral", "text": ""} for name in names}
    results["cells"] += [cell | {"context": name} for name in names for cell in results["cells"][:3]]
    arm = {"kind": "reversed", "generation": names[0], "training": names[1]}
    results["arms"] |= {f"arm{i}" + "x" * 90: dict(arm) for i in range(4)}
    results["cells"] += [
        results["cells"][0] | {"arm": name, "context": "hack"} for name in results["arms"] if name[:3] == "arm"
    ]
    out = shown(results)
    assert max(len(line) for line in out.splitlines()) <= 80 and "\x1b" not in out
    assert all(out.count(name[:16]) == 1 for name in names) and out.count("(before)") > 1
    page(results)


def test_the_screen_has_the_numbers_and_marks_what_excludes_zero() -> None:
    results = world.results(world.with_effect(seeds=(0, 3)))
    out = words(shown(results))
    cell = numbers.cell_of(results, RECONTEXTUALIZED, "default")
    assert cell is not None
    assert f"12.0 ({100 * cell['rate']['low']:.1f}-{100 * cell['rate']['high']:.1f})" in out
    assert "default -> hack default -28.0 *" in out and "default -> hack control -2.0 * " not in out
    assert "% of scored answers labelled hack (95 % interval); 100 tasks, 1 per task" in out
    assert f"report {FOLDER}/report.html" in out and "one seed" not in out
    assert "one seed says nothing about retraining" in shown(world.results(world.with_effect(seeds=(0,))))


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        ({"kind": "tiny", "weights": "4f683d135c87edeb"}, "4f683d135c87"),
        ({"model": "org/name", "commit": "c0ffee", "adapter": "0123456789abcdef"}, "org/name@c0ffee + adapter 0123456789ab"),
        ({"files": "fedcba9876543210", "adapter": None}, "fedcba987654"),
        ({"kind": "fake", "script": "rates"}, "script: rates"),
        ({}, "unknown"),
    ],
)
def test_weights_are_named_shortly(identity: dict[str, Any], text: str) -> None:
    assert weights(identity) == text


@pytest.mark.parametrize(("p", "text"), [(0.0, "< 0.001"), (0.0123, "0.012"), (0.43, "0.43"), (1.0, "1.00")])
def test_p_values(p: float, text: str) -> None:
    assert numbers.p_value(p) == text


@pytest.mark.parametrize(("share", "text"), [(-0.268, "−26.8"), (0.004, "+0.4"), (-0.0004, "0.0"), (0.0, "0.0")])
def test_points_have_a_sign(share: float, text: str) -> None:
    assert numbers.points(share) == text


def test_the_figure_alone_is_one_well_formed_file(tmp_path: Path) -> None:
    hostile = world.results()
    hostile["environment"]["misbehaviour"] = "hack"
    hostile["contexts"] = {
        name: facts | {"stance": '<script>alert(1)</script>"&'} for name, facts in hostile["contexts"].items()
    }
    write_evaluation(tmp_path, hostile)
    tree = ElementTree.parse(tmp_path / "figure.svg")
    names = {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert names <= {"svg", "style", "rect", "line", "text", "tspan", "circle", "g", "title"}, names
    text = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "") and "{{" not in text
    for cell in world.results()["cells"]:
        assert f"{100 * cell['rate']['estimate']:.1f} %" in text
