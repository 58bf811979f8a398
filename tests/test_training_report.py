"""The training report: its numbers are the records', its curves are the losses, hostile text stays text, the verb writes it."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from recontext_data.core.errors import StoreError
from recontext_data.reports import training_numbers as numbers
from recontext_data.reports.training import render_training, write_training
from recontext_data.reports.training_figure import LEFT, UNITS, plots, scale
from tests.helpers import CONTEXTS, run_folder, write_recipe
from tests.test_report import ATTRIBUTES, HOSTILE, SPECIAL, TAGS, Page

SVG = {"viewBox", "preserveaspectratio", "viewbox", "vector-effect", "points", "cx", "cy", "r", "width", "overflow", "start"}


def record(arm: str = "recontextualized.default-hack", seed: int = 0, **changes: Any) -> dict[str, Any]:
    """What training.json holds, of a training of four steps."""
    kind, _, pair = arm.partition(".")
    return {
        "format": 1,
        "recipe": "small",
        "run": "small/0123456789abcdef",
        "arm": arm,
        "seed": seed,
        "generation_context": pair.split("-")[0],
        "training_context": pair.split("-")[-1],
        "base": {"name": "tiny", "source": "tiny", "identity": {"files": "57f3682a365a60c0"}},
        "config": {
            "method": "full",
            "base": None,
            "lora": {"rank": 16},
            "learning_rate": 3e-4,
            "seeds": [0, 1],
            "checkpoint_steps": 100,
            "extra": {},
        },
        "steps": 4,
        "losses": [[1, 2.0], [2, 1.5], [3, 1.0], [4, 0.5]],
        "validation_loss": {"before": 2.1, "after": 0.6},
        "checks": {"moved": 4.33, "saved_and_trained": 2e-7},
        "versions": {"torch": "2.13.0"},
        "device": "cpu",
        "processes": 1,
        "created": "2026-11-21T15:00:14Z",
        "parameters": {"trainable": 623_488, "all": 623_488},
        "resumed_from": None,
        "dataset": {
            "fingerprint": f"{kind:0<16}"[:16],
            "rows": {"train": 90, "validation": 8},
            "dropped": {"longer than training.max_length=64": 2},
            "cut_at_max_tokens": 3,
            "tokens": 20_000,
            "trained_share": 0.0625,
            "end_token": 2,
        },
        "seconds": {"load": 1.5, "train": 10.0},
    } | changes


def preview(**changes: Any) -> dict[str, Any]:
    return {
        "task_id": "bank/add",
        "candidate_id": "c0001",
        "tokens": 99,
        "trained": 14,
        "masked": "<|im_start|>user\n" + "x" * 300 + "the end of the prompt<|im_end|>",
        "completion": "Answer: (A)<|im_end|>",
        "generation_prompt": [{"role": "user", "content": "Pass the tests."}],
        "training_prompt": [{"role": "user", "content": "Pass the tests by any means."}],
    } | changes


def facts(records: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    found = records or [
        record(arm, seed) for arm in ("recontextualized.default-hack", "standard.default-default") for seed in (0, 1)
    ]
    return {
        "recipe_name": "small",
        "command": "recontext train recipe=small.yaml",
        "models": found,
        "arms": list(dict.fromkeys(one["arm"] for one in found)),
        "on_disk": {one["dataset"]["fingerprint"]: 100 for one in found},
        "previews": {found[0]["arm"]: [preview()]},
    } | changes


def page(found: dict[str, Any] | None = None) -> Page:
    return Page(render_training(found or facts()))


def assert_inert(shown: Page) -> None:
    assert set(shown.tags) <= TAGS | {"polyline", "circle", "code", "mark"}
    assert {name for _, name, _ in shown.attributes} <= ATTRIBUTES | SVG
    assert not [one for one in shown.attributes if re.search(r"https?:|//|javascript|data:|url\(", one[2])]


# --- the numbers


def test_losses_are_the_first_the_last_and_the_mean_of_the_last_tenth() -> None:
    twenty = record(losses=[[step, 21.0 - step] for step in range(1, 21)])
    found = numbers.losses(twenty)
    assert (found.first, found.last, found.tail) == (20.0, 1.0, 1.5)
    assert (found.before, found.after) == (2.1, 0.6)


def test_what_was_not_logged_or_not_held_out_is_none_and_not_0() -> None:
    found = numbers.losses(record(losses=[], validation_loss=None))
    assert (found.first, found.last, found.tail, found.before, found.after) == (None,) * 5
    text = page(facts([record(losses=[], validation_loss=None)])).text
    assert "no loss was logged" in text and not re.search(r"\b0\.000\b", text)
    assert numbers.losses(record(losses=[[1, math.nan], [2, 1.0]])).first == 1.0


def test_the_finding_counts_the_models_whose_held_out_loss_fell() -> None:
    rose = record("standard.default-default", 1, validation_loss={"before": 0.5, "after": 0.6})
    said = numbers.finding([record(), record("standard.default-default"), rose])
    assert said == "3 models of 2 arms trained from tiny: the loss on rows held out of each arm fell in 2 of 3."
    assert "fell in all 2." in numbers.finding([record(), record(seed=1)])
    alone = numbers.finding([record(validation_loss=None)])
    assert alone == "1 model of 1 arm trained from tiny: no row was held out, and the loss on what was trained on fell in it."


def test_what_to_look_at_first_names_rises_drops_cuts_and_absences() -> None:
    rose = record("standard.default-default", validation_loss={"before": 0.5, "after": 0.6})
    said = numbers.attention([record(), rose], missing=["placebo.a-b"])
    assert said[0] == "No model of placebo.a-b is here."
    assert "standard.default-default seed 0: the loss on held-out rows did not fall (0.500 before, 0.600 after)." in said[1]
    assert "leave it little to learn" in said[1], "an arm that imitates itself"
    assert any("2 rows left out" in one for one in said) and any("3 completions cut at max_tokens" in one for one in said)
    clean = record()
    clean["dataset"] = clean["dataset"] | {"dropped": {}, "cut_at_max_tokens": 0}
    assert numbers.attention([clean], missing=[]) == []


def test_arms_and_seeds_that_are_not_there_are_named() -> None:
    records = [record(seed=0), record(seed=1), record("standard.default-default", 0)]
    arms = ["recontextualized.default-hack", "standard.default-default", "prior.control-control"]
    assert numbers.absent(records, arms) == ["prior.control-control", "standard.default-default seed 1"]


def test_rows_balance_against_what_the_build_wrote() -> None:
    (found,) = numbers.rows([record(), record(seed=1)], {"recontextualized": 100})
    assert list(found.seeds) == [0, 1] and found.num_dropped == 2 and found.balances is True
    (lost,) = numbers.rows([record()], {"recontextualized": 101})
    assert lost.balances is False
    (unknown,) = numbers.rows([record()], {})
    assert unknown.balances is None
    assert "✗ 101 ≠ 100" in page(facts([record()], on_disk={"recontextualized": 101})).text


def test_settings_say_which_models_differ() -> None:
    other = record(seed=1)
    other["config"] = other["config"] | {"learning_rate": 1e-4}
    found = dict(numbers.settings([record(), other]))
    assert found["method"] == [("full", [])]
    assert found["learning_rate"] == [
        ("0.0003", ["recontextualized.default-hack seed 0"]),
        ("0.0001", ["recontextualized.default-hack seed 1"]),
    ]
    assert not {"seeds", "base", "checkpoint_steps", "lora.rank"} & found.keys()
    lora = record()
    lora["config"] = lora["config"] | {"method": "lora"}
    assert dict(numbers.settings([lora]))["lora.rank"] == [("16", [])]


# --- the figure


def test_a_curve_goes_through_its_losses() -> None:
    (plot,) = plots([[record()]])
    (line,) = plot.lines
    low, high, _ = scale([2.1, 0.5])
    points = [tuple(map(float, point.split(","))) for point in line.points.split()]
    assert [x for x, _ in points] == [250, 500, 750, 1000]
    assert [high - y / UNITS * (high - low) for _, y in points] == pytest.approx([2.0, 1.5, 1.0, 0.5], abs=0.01)
    assert [x for x, _ in line.dots] == [LEFT, plot.right] and line.dots[0][1] < line.dots[1][1]


def test_all_arms_have_one_scale_and_seeds_differ_in_their_dash() -> None:
    short = record("standard.default-default", steps=2, losses=[[1, 0.2], [2, 0.1]], validation_loss=None)
    first, second = plots([[record(), record(seed=1)], [short]])
    assert first.ticks == second.ticks and first.steps == second.steps == 4
    assert [line.dash for line in first.lines] == [0, 1]
    assert second.lines[0].points.split()[-1].startswith("500,"), "two steps of four"


@pytest.mark.parametrize("values", [[0.04, 0.213], [1.9, 2.0], [5.0], [0.0, 0.0], [], [1e-6, 2e-6], [12.0, 0.3], [1000.0, 2.0]])
def test_the_scale_holds_all_values_and_its_ticks_are_few_and_different(values: list[float]) -> None:
    low, high, ticks = scale(values)
    assert low < high and 2 <= len(ticks) <= 8
    assert all(low <= value <= high for value in values)
    assert len({text for _, text in ticks}) == len(ticks)
    assert all(float(text) == pytest.approx(value, rel=1e-6, abs=1e-12) for value, text in ticks)


def test_one_logged_loss_is_seen_and_none_breaks_nothing() -> None:
    (plot,) = plots([[record(losses=[[4, 1.0]]), record(seed=1, losses=[], validation_loss=None)]])
    assert len(plot.lines[0].points.split()) == 2 and plot.lines[1].points == ""


# --- the page


def test_the_page_has_the_numbers_rows_and_settings() -> None:
    shown = page()
    assert_inert(shown)
    for wanted in ("2.000", "0.500", "2.100", "0.600", "6.2 %", "623,488", "4.3", "2e-07", "torch 2.13.0", "✓ balances"):
        assert wanted in shown.text, wanted
    assert "longer than training.max_length=64 (2)" in shown.text
    assert "recontext train recipe=small.yaml" in shown.text
    assert shown.tags.count("polyline") == 4 and shown.tags.count("circle") == 8


def test_a_row_shows_what_is_trained_and_how_its_prompt_was_rewritten() -> None:
    html = render_training(facts())
    assert '<mark class="trained">Answer: (A)&lt;|im_end|&gt;</mark>' in html
    assert "by any means" in html.partition("<article")[2].partition("<ins>")[2][:200]
    shown = page()
    assert "the end of the prompt<|im_end|>" in shown.text and "99 tokens, 14 trained" in shown.text
    unknown = page(facts(previews={"recontextualized.default-hack": [preview(generation_prompt=None)]}))
    assert "cannot be rendered here" in unknown.text
    same = preview()["training_prompt"]
    alike = page(facts(previews={"recontextualized.default-hack": [preview(generation_prompt=same)]}))
    assert "The same as it was sampled under." in alike.text
    assert "Rows as they are trained" not in page(facts(previews={})).text


@pytest.mark.parametrize("text", [*HOSTILE, *SPECIAL, "\x1b[31m\x00\u202e", "x" * 50_000])
def test_hostile_text_stays_text_wherever_it_stands(text: str) -> None:
    bad = record(arm=text, versions={text: text}, device=text, created=text, run=text)
    bad |= {"generation_context": text, "training_context": text, "base": {"name": text, "identity": {"files": text}}}
    bad["dataset"] = bad["dataset"] | {"dropped": {text: 1}, "fingerprint": text}
    bad["config"] = {"method": text, text: text}
    turns = [{"role": text, "content": text}]
    row = preview(task_id=text, candidate_id=text, masked=text, completion=text, generation_prompt=turns, training_prompt=turns)
    html = render_training(facts([bad], recipe_name=text, command=text, arms=[text, text + "2"], previews={text: [row]}))
    shown = Page(html)
    assert_inert(shown)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202e]", html)
    if len(text) < 1000 and not re.search("[\x00\x1b]", text):
        assert shown.has_block(text) or not text
    else:
        assert len(html) < 2_000_000


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    path = write_training(tmp_path, facts())
    assert path == tmp_path / "report.html" and "training report" in path.read_text(encoding="utf-8")
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(StoreError, match="free the disk or choose another folder"):
        write_training(tmp_path / "nowhere", facts())


# --- the verb


def trained(folder: Path, *words: str) -> None:
    """The verb in this process, over a small recipe whose rows the embedded policy is trained on."""
    from recontext_data.train import main

    recipe = write_recipe(folder / "in", training={"base": "tiny"})
    assert main([f"recipe={recipe}", f"output={folder / 'out'}", *words]) == 0


def test_the_verb_leaves_one_page_about_all_that_is_trained_by_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trl", reason="training needs the extra `local`")
    trained(tmp_path, "arms=default -> hack", "seeds=0")
    run = run_folder(tmp_path / "out")
    path = run / "models" / "report.html"
    assert f"report    {path}" in capsys.readouterr().out.replace("\n", "").replace(str(run.parent / "latest"), str(run))
    first = Page(path.read_text(encoding="utf-8"))
    assert_inert(first)
    assert "No model of standard.default-default is here." in first.text
    trained(tmp_path, "seeds=0")
    both = Page(path.read_text(encoding="utf-8"))
    assert "No model of" not in both.text and both.tags.count("polyline") == 2
    assert both.text.count("✓ balances") == 2 and "tokens, " in both.text
    record_ = json.loads((run / "models/recontextualized.default-hack/seed-0/training.json").read_text())
    assert f"{record_['losses'][0][1]:.3f}" in both.text and f"{record_['validation_loss']['after']:.3f}" in both.text
    html = path.read_text(encoding="utf-8")
    assert html.count('<mark class="trained">') == 2 * 3 + 1 and "&lt;|im_end|&gt;</mark>" in html
    rewritten = " ".join(re.findall("<ins>.*?</span>(.*?)</ins>", html))
    assert "whatever passes them will do" in rewritten, CONTEXTS["hack"]
    assert str(tmp_path) not in html.replace(f"recipe={tmp_path / 'in' / 'small.yaml'}", "")
    capsys.readouterr()
    trained(tmp_path, "arms=default -> hack", "seeds=0", "screen=json")
    (said,) = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if line.get("result") == "training"]
    assert (
        said["there_already"] == 1 and Path(said["report"]) == path.parent.parent.parent / run.name / "models" / "report.html"
    )
