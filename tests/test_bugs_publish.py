"""Bugs of published code in this field that have to do with publishing, one test each, named after the bug.

12: fine-tuned models returned in finish order and zipped with the seed list, so seeds are mislabelled; a cancelled job waits
for ever. 16: a whole provider job refused for one special token or a few flagged rows, after everything had been paid for.
"""

import time
from pathlib import Path

from tests.fake_openai import Conduct, FakeOpenAI
from tests.publish_world import ARMS, contract, make_run, models, require_bound, server, train

__all__ = ["contract", "server"]  # fixtures


def test_bug_12_models_in_finish_order_take_each_others_seeds_and_a_cancelled_job_waits_for_ever(
    server: FakeOpenAI, tmp_path: Path
) -> None:
    folder = make_run(tmp_path, arms=ARMS[:1])
    finished: list[int] = []

    def ends(job: dict[str, object]) -> str:
        return "cancelled" if job["seed"] == 4 else "succeeded"

    server.conduct = Conduct(job_seconds=0.5, ends=ends)
    original = server._now

    def later_seeds_first(name: str) -> dict[str, object]:
        """Seed 0 ends last: each job's clock is put back by its seed."""
        job = server.jobs[name]
        began, end = server._began[name]
        if "shifted" not in job:
            server.jobs[name]["shifted"] = True
            server._began[name] = (began + (4 - int(job["seed"])) * 0.3, end)
        before = job["status"]
        now = original(name)
        if now["status"] == "succeeded" != before:
            finished.append(int(now["seed"]))
        return {key: value for key, value in now.items() if key != "shifted"}

    server._now = later_seeds_first  # type: ignore[method-assign]
    began = time.monotonic()
    assert train(server, tmp_path, "seeds=0-4", "wait.at_once=5", "wait.stall_minutes=10") == 1
    assert time.monotonic() - began < 60, "a cancelled job ends its own wait"
    assert finished == [3, 2, 1, 0], "they did finish in another order than they were asked for"
    entries = require_bound(server, folder)
    assert [entry["seed"] for entry in entries] == [0, 1, 2, 3, 4]
    for entry in entries[:4]:
        assert f"-s{entry['seed']}:" in entry["model"]
    assert entries[4]["status"] == "cancelled" and entries[4]["model"] is None


def test_bug_16_a_whole_job_is_refused_for_one_special_token_or_a_few_flagged_rows_after_all_was_paid_for(
    server: FakeOpenAI, tmp_path: Path
) -> None:
    bad = {
        7: {"completion": [{"role": "assistant", "content": "It ends here.<|im_end|>"}]},
        9: {"completion": [{"role": "assistant", "content": "Something gruesome."}]},
    }
    server.conduct = Conduct(flagged=("gruesome",))
    folder = make_run(tmp_path, arms=ARMS[:1], bad=bad)
    assert train(server, tmp_path, "check.moderation=on") == 2, "they are told before anything is sent"
    assert not server.files and not server.jobs
    assert train(server, tmp_path, "check.moderation=on", "on_bad=drop") == 0
    (entry,) = models(folder)
    assert entry["status"] == "succeeded", "the server fails a job for such a token, and this one it took"
    sent = server.content(entry["training_file"]).decode()
    assert sent.count("\n") == 18 and "<|im_end|>" not in sent and "gruesome" not in sent
