"""The reply store: acknowledged is on disk, a torn tail costs one line, two writers share, a full disk is one line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from recontext_data.core.errors import StoreError
from recontext_data.core.records import Reply
from recontext_data.store.replies import ReplyStore
from tests.helpers import environment


def reply(key: str, text: str = "text") -> Reply:
    return Reply(key=key, completion=text, finish_reason="stop", model="m", prompt_tokens=3, completion_tokens=1)


def found(folder: Path, *keys: str) -> dict[str, str]:
    return dict(ReplyStore(folder).find(pl.Series(list(keys), dtype=pl.String)).select("key", "completion").iter_rows())


def names(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def test_what_was_appended_is_found_at_once_and_after_sealing(tmp_path: Path) -> None:
    with ReplyStore(tmp_path) as store:
        store.append([reply("a", "“é” 🧪\n"), reply("b", "")])
        assert found(tmp_path, "a", "b", "c") == {"a": "“é” 🧪\n", "b": ""}
        assert len(names(tmp_path, "journal-*.jsonl")) == 1
    assert names(tmp_path, "journal-*") == []
    assert len(names(tmp_path, "segment-*.parquet")) == 1
    assert found(tmp_path, "a", "b", "c") == {"a": "“é” 🧪\n", "b": ""}


def test_every_field_comes_back(tmp_path: Path) -> None:
    full = Reply(
        key="k",
        completion="c",
        reasoning="r",
        finish_reason="length",
        model="m",
        prompt_tokens=5,
        completion_tokens=6,
        details={"a": 1},
    )
    with ReplyStore(tmp_path) as store:
        store.append([full, Reply(key="bare", completion="")])
    rows = {row["key"]: row for row in ReplyStore(tmp_path).find(pl.Series(["k", "bare"])).drop("written").to_dicts()}
    assert rows["k"] == {
        "key": "k",
        "completion": "c",
        "reasoning": "r",
        "finish_reason": "length",
        "model": "m",
        "prompt_tokens": 5,
        "completion_tokens": 6,
        "details": '{"a":1}',
    }
    assert [rows["bare"][name] for name in ("reasoning", "finish_reason", "prompt_tokens", "details")] == [None] * 4


def test_an_empty_or_missing_folder_holds_nothing(tmp_path: Path) -> None:
    assert found(tmp_path / "nowhere", "a") == {}
    with ReplyStore(tmp_path / "replies"):
        pass
    assert names(tmp_path / "replies", "*") == []


def test_the_reply_written_first_is_kept(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with ReplyStore(tmp_path) as store:
            store.append([reply("a", text)])
    assert found(tmp_path, "a") == {"a": "first"}


def abandon(folder: Path, *replies: Reply) -> Path:
    """A journal as a killed build leaves it."""
    script = (
        "import os, sys; from pathlib import Path; from recontext_data.core.records import Reply\n"
        "from recontext_data.store.replies import ReplyStore\n"
        "store = ReplyStore(Path(sys.argv[1])).__enter__()\n"
        "store.append([Reply(key=word, completion=word.upper()) for word in sys.argv[2:]])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    words = [sys.executable, "-c", script, str(folder), *(one.key for one in replies)]
    assert subprocess.run(words, env=environment(), check=False).returncode == -signal.SIGKILL
    (path,) = folder.glob("journal-*.jsonl")
    return path


@pytest.mark.parametrize("tail", [b"", b'{"key":"torn","comp', b"\x00\x00\x00", '{"key":"é'.encode()[:-1]])
def test_an_abandoned_journal_is_sealed_and_its_torn_tail_dropped(tail: bytes, tmp_path: Path) -> None:
    journal = abandon(tmp_path, reply("a"), reply("b"))
    with journal.open("ab") as handle:
        handle.write(tail)
    assert found(tmp_path, "a", "b", "torn") == {"a": "A", "b": "B"}
    with ReplyStore(tmp_path):
        pass
    assert names(tmp_path, "journal-*") == []
    assert found(tmp_path, "a", "b", "torn") == {"a": "A", "b": "B"}


def test_a_journal_of_a_torn_line_alone_vanishes(tmp_path: Path) -> None:
    abandon(tmp_path, reply("a")).write_bytes(b'{"key"')
    with ReplyStore(tmp_path):
        pass
    assert names(tmp_path, "*.*") == []


@pytest.mark.parametrize("damage", [b"garbage", b'{"key":"b","compl', b"\x00\x00", b"123", b'{"key":5}', b'{"other":1}'])
def test_a_damaged_line_in_the_middle_is_named_and_costs_itself_alone(damage: bytes, tmp_path: Path) -> None:
    journal = abandon(tmp_path, reply("a"), reply("b"), reply("c"))
    lines = journal.read_bytes().split(b"\n")
    lines[1] = damage
    journal.write_bytes(b"\n".join(lines))
    with ReplyStore(tmp_path) as store:
        assert len(store.warnings) == 1
        assert f"{journal}: 1 line is damaged" in store.warnings[0]
    assert found(tmp_path, "a", "b", "c") == {"a": "A", "c": "C"}
    (aside,) = tmp_path.glob("damaged-*")
    assert aside.read_bytes() == damage + b"\n"


@pytest.mark.parametrize("old", [b'"B"', b'"key":"b"'])
def test_a_flipped_bit_is_no_reply(old: bytes, tmp_path: Path) -> None:
    journal = abandon(tmp_path, reply("a"), reply("b"))
    flipped = bytes([old[-2] ^ 1])
    journal.write_bytes(journal.read_bytes().replace(old, old[:-2] + flipped + old[-1:]))
    assert found(tmp_path, "a", "b", "c") == {"a": "A"}


def test_a_damaged_segment_is_named(tmp_path: Path) -> None:
    with ReplyStore(tmp_path) as store:
        store.append([reply("a")])
    (segment,) = tmp_path.glob("segment-*")
    segment.write_bytes(segment.read_bytes()[:-20])
    with pytest.raises(StoreError, match=segment.name):
        found(tmp_path, "a")


def test_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    with ReplyStore(tmp_path) as one:
        one.append([reply("a")])
        with ReplyStore(tmp_path) as two:
            assert len(names(tmp_path, "journal-*.jsonl")) == 1
            two.append([reply("b")])
            assert found(tmp_path, "a", "b") == {"a": "text", "b": "text"}
        one.append([reply("c")])
    assert found(tmp_path, "a", "b", "c") == dict.fromkeys("abc", "text")
    assert len(names(tmp_path, "segment-*")) == 2


def test_a_kill_between_sealing_and_removing_doubles_nothing(tmp_path: Path) -> None:
    journal = abandon(tmp_path, reply("a"))
    whole = journal.read_bytes()
    with ReplyStore(tmp_path):
        pass
    journal.write_bytes(whole)
    assert found(tmp_path, "a") == {"a": "A"}
    with ReplyStore(tmp_path):
        pass
    assert found(tmp_path, "a") == {"a": "A"}
    assert len(names(tmp_path, "segment-*")) == 1


def test_a_full_disk_is_one_error_and_earlier_replies_stay(tmp_path: Path) -> None:
    """A file may grow to 64 KB here, which the system answers as it answers a full disk."""
    script = """
import resource, sys
from pathlib import Path
from recontext_data.core.errors import StoreError
from recontext_data.core.records import Reply
from recontext_data.store.replies import ReplyStore
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
done = 0
try:
    with ReplyStore(Path(sys.argv[1])) as store:
        while True:
            store.append([Reply(key=f"k{done}", completion="x" * 3000)])
            done += 1
except StoreError as error:
    print(done, error)
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    done, message = result.stdout.split(" ", 1)
    assert "cannot be written: File too large; what was there is still there" in message
    assert int(done) > 10
    with ReplyStore(tmp_path):
        pass
    assert len(found(tmp_path, *(f"k{i}" for i in range(int(done) + 1)))) == int(done)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"), ReplyStore(tmp_path / "replies"):
        pass
