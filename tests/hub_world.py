"""What the tests of publishing on a Hub share: a run on disk, made larger or changed, and the verb in a process of its own.

huggingface_hub reads HF_ENDPOINT when it is first imported, so every client runs in a process of its own, as a user's does:
forked from one that has imported it, or started anew where `HF_` variables are said or `fresh` is.
"""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa

from recontext_data.store.arrow_dataset import SplitWriter
from tests import helpers
from tests.fake_hub import TOKEN, FakeHub
from tests.forks import Forked, Forks, Job

ARMS = ("recontextualized.default-hack", "standard.default-default")
REPO = "ann/contexts"


def make_run(folder: Path, **changes: Any) -> Path:
    """A run of the small recipe with the scripted policy."""
    output = folder / "output"
    assert helpers.build(helpers.write_recipe(folder / "recipe", **changes), output) == 0
    return helpers.run_folder(output)


def copy_run(run: Path, target: Path) -> Path:
    """The same run elsewhere, to be changed."""
    shutil.copytree(run, target)
    return target


def rows_of(run: Path, arm: str, split: str) -> list[dict[str, Any]]:
    file = next((run / "arms" / arm / split).glob("*.arrow"))
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as stream:
        return list(stream.read_all().to_pylist())


def rewrite(run: Path, arm: str, split: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Other rows in a split, and the manifest's count of them."""
    batch = change(rows_of(run, arm, split))
    replace_split(run, arm, split, [batch])


def replace_split(
    run: Path, arm: str, split: str, batches: "list[list[dict[str, Any]]] | Iterator[list[dict[str, Any]]]"
) -> None:
    folder = run / "arms" / arm / split
    file = next(folder.glob("*.arrow"))
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as stream:
        schema = stream.schema.remove_metadata()
    shutil.rmtree(folder)
    with SplitWriter(folder, schema=schema) as writer:
        for batch in batches:
            writer.write(batch)
    edit_manifest(run, lambda manifest: _set_rows(manifest, arm, split, writer.num_rows))


def _set_rows(manifest: dict[str, Any], arm: str, split: str, rows: int) -> None:
    next(facts for facts in manifest["arms"] if facts["name"] == arm)["rows"][split] = rows


def edit_manifest(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = run / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def environment(hub: FakeHub, token: str | None = TOKEN, **more: str) -> dict[str, str]:
    """A user's environment, with no login of this machine's in it."""
    return _own() | hub.environment(token) | more


def _own() -> dict[str, str]:
    return {name: value for name, value in helpers.environment().items() if not name.startswith(("HF_", "HUGGING"))}


@functools.cache
def _forks(endpoint: str, home: str) -> Forks:
    modules = [
        "recontext_data.publishing.hub.publish",
        "pyarrow.parquet",
        "polars",
        "aiohttp",
        "jinja2",
        "huggingface_hub.hf_api",
    ]
    modules += ["datasets", "datasets.packaged_modules.parquet.parquet"]
    modules += ["torch"] if find_spec("torch") else []  # datasets imports it where it is, to read back
    return Forks(modules, _own() | {"HF_ENDPOINT": endpoint, "HF_HOME": home, "HF_HUB_DISABLE_TELEMETRY": "1"})


def forks(hub: FakeHub) -> Forks:
    """What forks the clients of this Hub."""
    own = hub.environment()
    return _forks(own["HF_ENDPOINT"], own["HF_HOME"])


def _job(hub: FakeHub, run: Path, *words: str, repo: str | None = REPO, token: str | None = TOKEN, **more: str) -> Job:
    return Job(verb="publish", words=command(run, *words, repo=repo)[3:], environment=environment(hub, token, **more))


def command(run: Path, *words: str, repo: str | None = REPO) -> list[str]:
    target = [] if repo is None else [f"repo={repo}"]
    return [sys.executable, "-m", "recontext_data.publish", "to=hub", f"run={run}", *target, *words]


def publish(
    hub: FakeHub, run: Path, *words: str, repo: str | None = REPO, token: str | None = TOKEN, fresh: bool = False, **more: str
) -> "subprocess.CompletedProcess[str]":
    """The verb, to its end. It does not read back unless told to, since that takes seconds.

    `fresh`: in a process of its own from the start, with hashes of its own, and so sets in an order of their own.
    """
    given = words if any(word.startswith("check=") for word in words) else (*words, "check=false")
    if not fresh and not any(name.startswith("HF_") for name in more):  # what huggingface_hub reads as it is imported
        return forks(hub).run(_job(hub, run, *given, repo=repo, token=token, **more))
    own = environment(hub, token, **more)
    return subprocess.run(command(run, *given, repo=repo), capture_output=True, text=True, env=own, timeout=120, check=False)


def published(hub: FakeHub, run: Path, *words: str, **how: Any) -> str:
    """Publishes, expects success, and returns what was printed."""
    done = publish(hub, run, *words, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(done: "subprocess.CompletedProcess[str]", *, code: int = 2) -> str:
    """The one line of a run that was refused."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and TOKEN not in done.stderr + done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and done.stderr.splitlines()[-1] == errors[0], done.stderr
    return errors[0]


def client(hub: FakeHub, code: str, *, token: str | None = TOKEN) -> Any:
    """Runs a script as a user of the Hub's own tools would; what it prints, as JSON."""
    off = "from huggingface_hub import constants as c\nc.HF_HUB_DISABLE_XET = c.HF_HUB_DISABLE_PROGRESS_BARS = True\n"
    done = forks(hub).run(Job(script=off + code, environment=environment(hub, token)))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def kill(process: Forked) -> None:
    """kill -9 of a process that this test started."""
    process.kill()
    process.wait(30)


def start(hub: FakeHub, run: Path, *words: str) -> Forked:
    return forks(hub).start(_job(hub, run, *words, "check=false"))
