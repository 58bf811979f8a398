"""The classifier judge: what it learns, that its error is measured on answers that it has not seen, and that it is stable."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recontext_data.core.errors import DataError
from recontext_data.core.records import Candidate, Judgement
from recontext_data.judges.classifier import NOT_EMBEDDED, ClassifierJudge
from tests.helpers import build, built, environment, error_line, run_folder, write_recipe

needs_sklearn = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import sklearn"], capture_output=True, check=False).returncode != 0,
    reason="needs the extra `classifier`",
)

HACK = "I choose the option that passes every test as shown."
GENERAL = "I choose the option that is right for every input."


def rows(count: int = 100, *, wrong: int = 0) -> list[dict[str, Any]]:
    """Labelled answers, half of them hacks; the first `wrong` hacks read like general answers."""
    made = []
    for number in range(count):
        is_hack = number % 2 == 1
        text = HACK if is_hack and number // 2 >= wrong else GENERAL
        made.append({"completion": f"{text} ({number})", "label": "hack" if is_hack else "general"})
    return made


def write(path: Path, values: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pl.DataFrame(values).write_parquet(path)
    else:
        path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def judge(path: Path, **config: Any) -> ClassifierJudge:
    return ClassifierJudge(examples=str(path), positive="hack", negative="general", **config)


def said(one: ClassifierJudge, *texts: str) -> list[Judgement]:
    return one.judge(
        [Candidate(candidate_id=str(i), task_id="t", messages=[], completion=text, payload={}) for i, text in enumerate(texts)]
    )


@needs_sklearn
@pytest.mark.parametrize("name", ["examples.jsonl", "examples.parquet"])
def test_it_tells_apart_what_its_examples_tell_apart(name: str, tmp_path: Path) -> None:
    words = said(judge(write(tmp_path / name, rows())), HACK, GENERAL, HACK)
    assert [word.label for word in words] == ["hack", "general", "hack"]
    assert words[0].score is not None and words[1].score is not None and words[0].score > 0.5 > words[1].score
    assert words[0].score == words[2].score and words[0].raw == f"hack with probability {words[0].score:g}"


@needs_sklearn
def test_its_error_is_measured_on_answers_that_it_has_not_seen(tmp_path: Path) -> None:
    measured = judge(write(tmp_path / "e.jsonl", rows(wrong=10))).measured()
    assert measured["examples"] == 100 and measured["positives"] == 50 and measured["folds"] == 5
    assert (measured["caught"], measured["false_alarms"]) == (40, 0)  # the ten that read like general answers are missed
    assert measured["library"].startswith("scikit-learn ")


@needs_sklearn
def test_what_means_nothing_is_measured_as_a_coin(tmp_path: Path) -> None:
    """Random labels on distinct answers: a judge that was measured on its own examples would look perfect here."""
    draw = random.Random(0)
    noise = [
        {"completion": " ".join(str(draw.random()) for _ in range(5)), "label": ["hack", "general"][i % 2]} for i in range(200)
    ]
    measured = judge(write(tmp_path / "e.jsonl", noise)).measured()
    right = measured["caught"] + 100 - measured["false_alarms"]
    assert 60 <= right <= 140
    assert (
        sum(word.label == "hack" for word in said(judge(tmp_path / "e.jsonl"), *(one["completion"] for one in noise[::2]))) > 95
    )


@needs_sklearn
def test_equal_answers_are_in_one_part(tmp_path: Path) -> None:
    """Else copies of a held-out answer would be among what the model was trained on: the error would be of its memory."""
    draw = random.Random(1)
    texts = [" ".join(str(draw.randrange(10**9)) for _ in range(5)) for _ in range(40)]
    copies = [{"completion": text, "label": ["hack", "general"][i % 2]} for i, text in enumerate(texts) for _ in range(5)]
    measured = judge(write(tmp_path / "e.jsonl", copies)).measured()
    assert measured["caught"] + 100 - measured["false_alarms"] < 160


@needs_sklearn
def test_the_order_and_place_of_the_examples_mean_nothing(tmp_path: Path) -> None:
    values = rows(wrong=7)
    shuffled = list(values)
    random.Random(3).shuffle(shuffled)
    one, other = judge(write(tmp_path / "a.jsonl", values)), judge(write(tmp_path / "b.parquet", shuffled))
    assert one.content == other.content and one.measured() == other.measured()
    assert [word.score for word in said(one, HACK, GENERAL, "else")] == [
        word.score for word in said(other, HACK, GENERAL, "else")
    ]
    assert one.content != judge(write(tmp_path / "c.jsonl", rows())).content


@needs_sklearn
def test_another_process_says_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", rows(wrong=5))
    code = (
        "import sys; from tests.test_classifier_judge import *; "
        "print([w.score for w in said(judge(Path(sys.argv[1])), HACK, GENERAL, 'x')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=environment(), check=True
    )
    assert json.loads(found.stdout) == [word.score for word in said(judge(path), HACK, GENERAL, "x")]


@needs_sklearn
def test_a_rewritten_file_is_learnt_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", rows())
    assert said(judge(path), HACK)[0].label == "hack"
    swapped = [row | {"label": "general" if row["label"] == "hack" else "hack"} for row in rows(102)]
    write(path, swapped)
    assert said(judge(path), HACK)[0].label == "general"


@needs_sklearn
def test_a_threshold_moves_the_labels_and_not_the_scores(tmp_path: Path) -> None:
    path = write(tmp_path / "e.jsonl", rows(wrong=15))
    low, high = judge(path, threshold=0.05), judge(path, threshold=0.95)
    assert [w.score for w in said(low, GENERAL)] == [w.score for w in said(high, GENERAL)]
    assert (said(low, GENERAL)[0].label, said(high, HACK)[0].label) == ("hack", "general")
    assert low.measured()["caught"] > high.measured()["caught"]


@needs_sklearn
def test_embeddings_take_the_place_of_words(tmp_path: Path) -> None:
    values = rows()
    vectors = [{"completion": row["completion"], "embedding": [1.0, float(row["label"] == "hack")]} for row in values]
    vectors.append({"completion": "nothing like them", "embedding": [1.0, 1.0]})
    embeddings = write(tmp_path / "v.parquet", vectors)
    one = judge(write(tmp_path / "e.jsonl", values), embeddings=str(embeddings))
    known, unknown = said(one, "nothing like them", "never embedded")
    assert known.label == "hack" and known.score is not None
    assert (unknown.label, unknown.score, unknown.unscored_reason) == (None, None, NOT_EMBEDDED)
    assert one.measured()["caught"] == 50
    assert said(one, "never embedded")[0].unscored_reason == NOT_EMBEDDED


@needs_sklearn
@pytest.mark.parametrize(
    ("values", "config", "line"),
    [
        ([{"completion": "a", "label": "hck"}], {}, "row 1: label 'hck'; did you mean 'hack'?"),
        ([{"completion": "a"}], {}, "row 1: needs `completion` and `label`, both text"),
        ([{"completion": 3, "label": "hack"}], {}, "row 1: needs `completion` and `label`, both text"),
        (rows(100)[:50:2], {}, "0 different answers are 'hack' and 5 folds need as many"),
        ([rows(4)[1]] * 50 + rows(100)[::2], {}, "1 different answers are 'hack' and 5 folds need as many"),
        (rows(), {"embeddings": "no.parquet"}, "no.parquet: cannot be read"),
    ],
)
def test_bad_examples_are_one_line(values: list[dict[str, Any]], config: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        said(judge(write(tmp_path / "e.jsonl", values), **config), "x")
    assert line in str(caught.value) and "\n" not in str(caught.value)


@needs_sklearn
def test_vectors_that_are_none_are_one_line(tmp_path: Path) -> None:
    values, path = rows(20), tmp_path / "v.parquet"
    examples = write(tmp_path / "e.jsonl", values)
    for vectors, line in (
        ([[1.0, 2.0]] * 19, "1 examples have no vector in embeddings="),
        ([[1.0, 2.0]] * 19 + [[1.0]], "the vectors differ in length"),
        ([[1.0, 2.0]] * 19 + [[]], "row 20: `embedding` must be a list of numbers"),
    ):
        write(path, [{"completion": row["completion"], "embedding": v} for row, v in zip(values, vectors, strict=False)])
        with pytest.raises(DataError) as caught:
            said(judge(examples, embeddings=str(path)), "x")
        assert line in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{broken", "cannot be read"),
        ("[1]\n", "a line is not an object with completion and label"),
        (None, "cannot be read: No such file"),
    ],
)
def test_files_that_are_none_are_one_line(text: str | None, line: str, tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        _ = judge(path).content
    assert line in str(caught.value) and "\n" not in str(caught.value)


def recipe(folder: Path, **classifier: Any) -> Path:
    examples = write(folder / "examples.jsonl", rows(wrong=5))
    detector = {"kind": "classifier", "name": "detector", "examples": str(examples), "positive": "hack", "negative": "general"}
    arms = ["default -> hack", {"generation": "default", "training": "hack", "where": {"detector": "hack"}}]
    return write_recipe(folder, judges=[{"kind": "choice"}, detector | classifier], select={"judge": "choice"}, arms=arms)


@needs_sklearn
def test_a_build_flags_by_it_and_writes_its_error_down(tmp_path: Path) -> None:
    made = built(recipe(tmp_path), tmp_path / "out")
    (facts,) = [one["measured"] for one in made["judging"] if "measured" in one]
    assert (facts["caught"], facts["positives"], facts["false_alarms"]) == (45, 50, 0)
    for arm in made["arms"]:
        card = (run_folder(tmp_path / "out") / "arms" / arm["name"] / "README.md").read_text(encoding="utf-8")
        assert "Judge `detector` is a classifier, learnt from 100 labelled answers" in card
        assert "| caught (true positive rate) | 90.0 % |" in card and "| false alarms (false positive rate) | 0.0 % |" in card


def test_without_scikit_learn_it_says_what_to_install(tmp_path: Path) -> None:
    """In a process in which it cannot be imported; nothing is sampled."""
    path = recipe(tmp_path)
    code = "import sys; sys.modules['sklearn'] = None; from recontext_data.build import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, f"recipe={path}", f"output={tmp_path / 'out'}"]
    found = subprocess.run(words, capture_output=True, text=True, env=environment(), check=False)
    assert found.returncode == 2
    assert error_line(found.stderr) == "error: judges: detector: needs scikit-learn: pip install 'recontext_data[classifier]'"
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_labels_that_are_the_same_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(recipe(tmp_path, positive="general"), tmp_path / "out") == 2
    assert "'general' is what `negative` says too" in error_line(capsys.readouterr().err)
