"""The parts of publishing on a Hub that need none: fingerprints, shards, options, texts, secrets, cards."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from recontext_data.config.loading import load
from recontext_data.core.errors import DataError, RecipeError
from recontext_data.core.tables import TRAINING_ROWS, arrow_schema
from recontext_data.publishing.hub import data as hub_data
from recontext_data.publishing.hub.card import repository_card
from recontext_data.publishing.hub.data import Split, groups, read_split, write_shards
from recontext_data.publishing.hub.dataset import files_with
from recontext_data.publishing.hub.files import RepoFile, last_part, portable_manifest, portable_recipe, recipe_yaml
from recontext_data.publishing.hub.fingerprint import Fingerprint
from recontext_data.publishing.hub.options import hub_options
from recontext_data.publishing.hub.repo import Remote
from recontext_data.publishing.hub.secrets import KnownSecrets
from recontext_data.publishing.runs import open_run
from tests import hub_world, manifests
from tests.test_card import HOSTILE, outside_fences

SCHEMA = arrow_schema(TRAINING_ROWS)
NO_SECRETS = KnownSecrets({})

texts = st.text(max_size=6)
messages = st.lists(st.fixed_dictionaries({"role": texts, "content": st.none() | texts}), max_size=3)
judgements = st.lists(
    st.fixed_dictionaries(
        {
            "judge": texts,
            "label": st.none() | texts,
            "score": st.none() | st.floats(allow_nan=False),
            "unscored_reason": st.none(),
            "raw": texts,
        }
    )
    | st.none(),
    max_size=2,
)
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.none() | texts,
    "int64": st.none() | st.integers(-(2**63), 2**63 - 1),
    "messages": st.none() | messages,
}
COLUMNS |= {"float64": st.none() | st.floats(allow_nan=False), "judgements": st.none() | judgements}
rows = st.fixed_dictionaries({column.name: COLUMNS[column.type] for column in TRAINING_ROWS})


def fingerprint(*tables: pa.Table) -> str:
    found = Fingerprint()
    for table in tables:
        found.update(table)
    return found.hexdigest()


def table(values: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> pa.Table:
    return pa.Table.from_pylist(values, schema=schema)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_world.make_run(tmp_path_factory.mktemp("run"))


@settings(max_examples=30, deadline=None)
@given(values=st.lists(rows, max_size=7), cut=st.integers(0, 7))
def test_fingerprint_does_not_depend_on_batches_slices_or_widths(values: list[dict[str, Any]], cut: int) -> None:
    whole = table(values)
    expected = fingerprint(whole)
    assert fingerprint(whole.slice(0, cut), whole.slice(cut)) == expected
    assert fingerprint(table([*values, *values]).slice(len(values))) == expected
    assert fingerprint(whole.select(list(reversed(whole.column_names)))) == expected
    assert fingerprint(whole.cast(wide(SCHEMA))) == expected


def wide(schema: pa.Schema) -> pa.Schema:
    """The same columns with 64-bit offsets, as other writers make them."""

    def of(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_string(kind):
            return pa.large_string()
        if pa.types.is_list(kind):
            return pa.large_list(of(kind.value_type))
        if pa.types.is_struct(kind):
            return pa.struct([(field.name, of(field.type)) for field in kind])
        return kind

    return pa.schema([pa.field(field.name, of(field.type)) for field in schema])


@settings(max_examples=60, deadline=None)
@given(values=st.lists(rows, min_size=1, max_size=4), others=st.lists(rows, min_size=1, max_size=4))
def test_fingerprints_are_equal_where_rows_are_and_only_there(
    values: list[dict[str, Any]], others: list[dict[str, Any]]
) -> None:
    ours, theirs = table(values), table(others)
    # As text: 0.0 and -0.0 are equal and are not the same value.
    assert (fingerprint(ours) == fingerprint(theirs)) == (repr(ours.to_pylist()) == repr(theirs.to_pylist()))


ROW: dict[str, Any] = {
    "prompt": [{"role": "user", "content": "a"}, {"role": "user", "content": "bc"}],
    "task_id": "t",
    "k": 0,
    "score": 0.0,
    "judgements": [{"judge": "j", "label": None, "score": None, "unscored_reason": "r", "raw": ""}],
}


@pytest.mark.parametrize(
    "change",
    [
        {"k": 1},
        {"k": None},
        {"score": None},
        {"score": -0.0},
        {"task_id": ""},
        {"task_id": None},
        {"prompt": [{"role": "user", "content": "ab"}, {"role": "user", "content": "c"}]},
        {"prompt": [{"role": "user", "content": "a"}]},
        {"prompt": []},
        {"prompt": None},
        {"judgements": [None]},
        {"judgements": [{"judge": "j", "label": "", "score": None, "unscored_reason": "r", "raw": ""}]},
        {"judgements": [{"judge": "j", "label": None, "score": 0.0, "unscored_reason": "r", "raw": ""}]},
    ],
)
def test_every_small_change_of_a_row_shows(change: dict[str, Any]) -> None:
    other = {"task_id": "u", "k": 5}
    assert fingerprint(table([ROW, other])) != fingerprint(table([ROW | change, other]))


def test_the_order_of_rows_and_their_number_show() -> None:
    one, two = ROW, ROW | {"k": 9}
    assert fingerprint(table([one, two])) != fingerprint(table([two, one]))
    assert fingerprint(table([one])) != fingerprint(table([one, one])) != fingerprint(table([]))


def test_a_type_without_a_fingerprint_is_refused_and_named() -> None:
    with pytest.raises(DataError, match="column when: is of type timestamp"):
        fingerprint(pa.table({"when": pa.array([0], pa.timestamp("s"))}))


@pytest.mark.parametrize("sizes", [[1], [7, 3], [5, 5], [0, 10, 0], [3] * 7, [23]])
def test_groups_are_cut_by_rows_alone(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_data, "GROUP_ROWS", 5)
    numbers = iter(range(100))
    batches = [
        pa.RecordBatch.from_pylist([{"k": next(numbers)} for _ in range(size)], schema=pa.schema([("k", pa.int64())]))
        for size in sizes
    ]
    found = [group.column("k").to_pylist() for group in groups(batches)]
    assert [k for group in found for k in group] == list(range(sum(sizes)))
    assert all(len(group) == 5 for group in found[:-1]) and (not found or 1 <= len(found[-1]) <= 5)


def split_of(run: Path, arm: str = hub_world.ARMS[0], name: str = "train") -> Split:
    return read_split(open_run(str(run)), arm, name, secrets=NO_SECRETS)


def test_shards_have_all_rows_and_the_same_bytes_whatever_the_batches(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_data, "GROUP_ROWS", 3)
    monkeypatch.setattr(hub_data, "SHARD_BYTES", 1)
    other, arm = hub_world.copy_run(run, tmp_path / "run"), hub_world.ARMS[0]
    rows = hub_world.rows_of(run, arm, "train")
    hub_world.replace_split(other, arm, "train", [rows[:1], rows[1:8], rows[8:]])
    written: list[list[bytes]] = []
    for number, source in enumerate((run, other)):
        (tmp_path / str(number)).mkdir()
        shards = write_shards(split_of(source), tmp_path / str(number))
        assert [name for name, _ in shards] == [f"data/{arm}/train-{i:05}-of-00007.parquet" for i in range(7)]
        assert [row for _, path in shards for row in pq.read_table(path).to_pylist()] == rows
        written.append([path.read_bytes() for _, path in shards])
    assert written[0] == written[1]
    assert split_of(run).fingerprint == split_of(other).fingerprint


def test_a_split_without_rows_is_one_shard_with_the_columns(run: Path, tmp_path: Path) -> None:
    empty = hub_world.copy_run(run, tmp_path / "run")
    hub_world.replace_split(empty, hub_world.ARMS[0], "validation", [])
    shards = write_shards(split_of(empty, name="validation"), tmp_path)
    assert [name for name, _ in shards] == [f"data/{hub_world.ARMS[0]}/validation-00000-of-00001.parquet"]
    found = pq.read_table(shards[0][1])
    assert found.num_rows == 0 and found.schema.names == SCHEMA.names


def test_rows_that_the_repository_has_are_found_by_hash_and_not_by_its_word(run: Path) -> None:
    split = split_of(run)
    path = f"data/{split.arm}/train-00000-of-00001.parquet"
    note = {split.arm: {"train": {"rows": split.rows, "fingerprint": split.fingerprint, "files": {path: "ab" * 32}}}}
    assert files_with(split, note, Remote(head="h", private=True, files={path: "ab" * 32})) == {path: "ab" * 32}
    assert files_with(split, note, Remote(head="h", private=True, files={path: "cd" * 32})) == {}
    assert files_with(split, note, Remote(head="h", private=True, files={})) == {}
    elsewhere = {split.arm: {"train": note[split.arm]["train"] | {"files": {"data/x.parquet": "ab" * 32}}}}
    assert files_with(split, elsewhere, Remote(head="h", private=True, files={"data/x.parquet": "ab" * 32})) == {}
    assert files_with(split, {}, None) == {}


def test_hashes_are_those_of_git_and_of_lfs(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello\n")
    for item in (RepoFile("f", b"hello\n"), RepoFile("f", tmp_path / "f")):
        assert item.git_oid == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
        assert item.sha256 == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        assert item.size == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "repo: missing; write repo=USER/NAME"),
        ({"repo": "name"}, "repo=name: not a repository; write USER/NAME"),
        ({"repo": "a/b/c"}, "repo=a/b/c: not a repository"),
        ({"repo": "a/b--c"}, "not a repository"),
        ({"repo": "a/b.git"}, "not a repository"),
        ({"models_repo": "a/" + "b" * 100}, "not a repository"),
        ({"repo": "a/../b"}, "not a repository"),
        ({"repo": "a/b", "privat": "true"}, "privat: unknown key; did you mean 'private'?"),
        ({"repo": "a/b", "private": "yes"}, "private=yes: must be true or false"),
        ({"repo": "a/b", "seeds": "x"}, "seeds=x: must be integers"),
        ({"repo": "a/b", "tag": "v 1"}, "tag=v 1: not a tag"),
        ({"repo": "a/b", "models": "../x"}, "models=../x: becomes a folder"),
    ],
)
def test_wrong_options_are_one_line_that_says_what_to_write(words: dict[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        hub_options(words)
    assert "\n" not in str(caught.value)


def test_options_are_read() -> None:
    found = hub_options({"repo": "a/b", "private": "false", "arms": "x, y", "seeds": "1,2", "tag": "v1"})
    assert (found.repo, found.private, found.arms, found.seeds, found.tag) == ("a/b", False, ["x", "y"], [1, 2], "v1")
    assert hub_options({"repo": "a/b"}).private is None


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("/home/ann/model", "model"),
        (r"C:\Users\ann\model", "model"),
        ("Qwen/Qwen2.5", "Qwen/Qwen2.5"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_last_part_of_a_path(text: str, cut: str) -> None:
    assert last_part(text) == cut


def test_manifest_goes_up_without_paths_times_and_chance() -> None:
    manifest = manifests.manifest()
    manifest["recipe"]["policy"] = {"kind": "tiny", "path": "/home/ann/models/mine"}
    manifest["recipe"]["contexts"] = manifest["contexts"] = {
        "think": {"stance": "neutral", "placement": "user", "text": "/no_think"}
    }
    manifest["ledger"][1]["dropped"] = {"policy error: cannot read /home/ann/x.json": 4}
    manifest["command"] = "recontext build recipe=/home/ann/mine.yaml"
    found = portable_manifest(manifest)
    assert "/home" not in json.dumps(found) and found["recipe"]["policy"]["path"] == "mine"
    assert found["contexts"]["think"]["text"] == found["recipe"]["contexts"]["think"]["text"] == "/no_think"
    assert found["ledger"][1]["dropped"] == {"policy error: cannot read x.json": 4}
    other = manifest | {"created": "2031", "timings_seconds": {}, "files": {}, "requests": {"found": 9}}
    assert portable_manifest(other) == found


def test_the_recipe_that_goes_up_is_read_as_the_same_recipe(run: Path, tmp_path: Path) -> None:
    recipe = open_run(str(run)).manifest["recipe"]
    (tmp_path / "problems.jsonl").write_bytes(Path(recipe["environment"]["problems"]).read_bytes())
    (tmp_path / "recipe.yaml").write_bytes(recipe_yaml(recipe))
    again = load(str(tmp_path / "recipe.yaml"), [f"environment.problems={recipe['environment']['problems']}"])
    assert again.recipe.model_dump(mode="json") == recipe
    assert "/" not in yaml.safe_load(recipe_yaml(recipe))["environment"]["problems"]
    assert portable_recipe(recipe)["contexts"] == recipe["contexts"]


def test_a_key_is_found_in_texts_and_rows_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-planted-0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    monkeypatch.setenv("KEY_FILE", "/home/ann/.keys/a-long-enough-path")
    secrets = KnownSecrets.here()
    secrets.check([("a", b"abc"), ("b", b"/home/ann/.keys/a-long-enough-path")])
    with pytest.raises(DataError) as caught:
        secrets.check([("manifest.json", f"policy error: {key} is wrong".encode())])
    assert "manifest.json: holds the value of OPENAI_API_KEY" in str(caught.value) and key not in str(caught.value)
    planted = table([{"completion": [{"role": "assistant", "content": f"my key is {key}"}]}]).to_batches()[0]
    with pytest.raises(DataError, match=r"arms/x/train, column completion: holds the value of OPENAI_API_KEY"):
        secrets.check_rows(planted, where="arms/x/train")
    assert secrets.hide(f"bad {key}.") == "bad ***."


def card(manifest: dict[str, Any], *, licence: str | None = None) -> str:
    splits = [
        Split(run=None, arm=arm["name"], name=name, rows=count, fingerprint="f")  # type: ignore[arg-type]
        for arm in manifest["arms"]
        for name, count in arm["rows"].items()
    ]
    return repository_card(manifest, repo="ann/x", splits=splits, licence=licence)


def header(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_card_names_configurations_contexts_counts_judges_and_limits() -> None:
    manifest = manifests.manifest()
    manifest["recipe"]["judges"] = [{"kind": "choice", "name": "choice"}, {"kind": "rubric", "name": "quality"}]
    manifest["calibration"] = {"quality": {"items": 40, "agreement": 0.93125, "kappa": None}}
    text = card(manifest)
    top = header(text)
    assert [config["config_name"] for config in top["configs"]] == [arm["name"] for arm in manifest["arms"]]
    assert top["configs"][0]["data_files"][1] == {"split": "validation", "path": f"data/{manifests.ARM}/validation-*.parquet"}
    assert top["license"] == "unknown" and top["size_categories"] == ["1K<n<10K"]
    assert f"| `{manifests.ARM}` | recontextualized | `default` | `hack` | 918 | 102 | 39.4 % | 36.4–42.4 |" in text
    assert f"| `{manifests.ARM}` | 596 | 400 | 20 | 4 |" in text
    for name in ("default", "hack"):
        assert f"```text\n{manifests.CONTEXTS[name][1]}\n```" in text
    assert manifests.CONTEXTS["control"][1] not in text
    assert "| `choice` | `choice` | none is recorded in the manifest |" in text
    assert "| `quality` | `rubric` | `items` `40`, `agreement` `0.9313`, `kappa` – |" in text
    assert f"- {manifests.ARM}: 39.4 % of the rows are hack" in text
    assert 'load_dataset("ann/x", "recontextualized.default-hack")' in text and "2512.19027" in text
    assert "recipe.yaml" in text and manifest["fingerprint"] in text


def test_card_says_where_answers_come_from_that_no_context_made() -> None:
    manifest = manifests.manifest()
    assert "is no context" not in card(manifest) and "`none` is the bare task" not in card(manifest)
    manifest["arms"][1]["generation_context"] = "data.mine"
    assert "`data.mine` is no context: these answers were read from a file" in card(manifest)
    manifest["arms"][1]["generation_context"] = "none"
    assert "`none` is the bare task" in card(manifest) and "is no context" not in card(manifest)


def test_card_states_the_licence_it_is_given() -> None:
    manifest = manifests.manifest()
    manifest["environment"]["licence"] = "CC-BY-4.0 (MBPP, Google Research)"
    assert header(card(manifest))["license"] == "cc-by-4.0" and "`CC-BY-4.0 (MBPP, Google Research)`" in card(manifest)
    assert header(card(manifest, licence="mit"))["license"] == "mit"
    manifest["environment"]["licence"] = "ours"
    assert (header(card(manifest))["license"], header(card(manifest))["license_name"]) == ("other", "ours")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_breaks_neither_the_header_nor_the_page(text: str) -> None:
    manifest = manifests.manifest()
    clean = outside_fences(card(manifests.manifest()).split("---\n", 2)[2])
    manifest["contexts"]["hack"]["text"] = text
    manifest["recipe_name"] = manifest["command"] = manifest["fingerprint"] = text
    manifest["environment"] |= {"kind": text, "licence": text}
    manifest["ledger"][1]["dropped"] = {text: 4}
    manifest["policy"]["identity"] = {text: text}
    manifest["recipe"]["judges"] = [{"kind": text, "name": text}]
    manifest["caveats"] = [text]
    found = card(manifest, licence=text)
    top = header(found)
    assert len(top["configs"]) == 2 and len(top["tags"]) == 3
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", found)
    prose = outside_fences(found.split("---\n", 2)[2])
    assert [line for line in prose.splitlines() if line.startswith("## ")] == [
        line for line in clean.splitlines() if line.startswith("## ")
    ]


def test_card_is_the_same_on_another_day_and_machine() -> None:
    other = manifests.manifest() | {"created": "2031", "timings_seconds": {"tasks": 9.0}, "cost_usd": 7.0}
    other["requests"] = {"wanted": 1536, "found": 1536, "sampled": 0, "failed": 0}
    assert card(other) == card(manifests.manifest())
