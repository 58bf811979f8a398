"""Trained models on a Hub: what goes up and what stays, whose base an adapter names, merged models, and a second time."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load as tensors

from recontext_data.core.errors import RecipeError
from recontext_data.publishing.hub.options import hub_options
from recontext_data.publishing.hub.publish import publish as publish_here
from recontext_data.reports.screen import Screen
from recontext_data.training.sft import train
from tests import hub_world, training_world
from tests.fake_hub import FakeHub
from tests.hub_world import ARMS, client, publish, published, refusal

REPO = "ann/models"
ARM = ARMS[1]
SEED = f"{ARM}/seed-0"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an adapter, and with what trainings leave lying about."""
    folder = tmp_path_factory.mktemp("built")
    run = hub_world.make_run(folder)
    job = training_world.make_job(folder, method="lora", batch_size=32)
    assert job.arm == ARM and train(job, screen=Screen(out=StringIO(), err=StringIO())) is not None
    target = run / "models" / ARM / "seed-0"
    target.parent.mkdir(parents=True)
    job.target.rename(target)
    for name in ("training_args.bin", "optimizer.pt", "rng_state.pth", "trainer_state.json", "events.out.tfevents.1", ".lock"):
        (target / name).write_text(f"left by {folder}")
    (target / "checkpoint-5").mkdir()
    (target / "checkpoint-5" / "model.safetensors").write_bytes(b"half")
    config = json.loads((target / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(folder / "model")}))
    return run


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    with FakeHub(tmp_path / "hub", part_bytes=10_000) as server:
        yield server


def files(hub: FakeHub) -> list[str]:
    return sorted(hub.repo(REPO, kind="model").head.files)


def text(hub: FakeHub, path: str) -> str:
    return hub.state.content(REPO, path, kind="model").decode()


def model_file(run: Path) -> bytes:
    return (run.parents[3] / "model" / "model.safetensors").read_bytes()


def test_an_adapter_goes_up_without_this_machine_and_loads_on_its_base(hub: FakeHub, built: Path, tmp_path: Path) -> None:
    done = publish(hub, built, f"models_repo={REPO}", "tag=v1", repo=None)
    assert done.returncode == 0, done.stderr
    inner = [path.removeprefix(f"{SEED}/") for path in files(hub) if path.startswith(SEED)]
    assert {"adapter_config.json", "adapter_model.safetensors", "training.json", "README.md", "tokenizer.json"} <= set(inner)
    left = ("training_args.bin", "optimizer.pt", "rng_state.pth", "trainer_state.json", "events", "checkpoint", ".lock")
    assert not [path for path in inner if path.startswith(left)]
    assert "stays here: " in done.stderr and "training_args.bin" in done.stderr
    base = built.parents[3] / "model"
    assert base.is_dir() and str(base.parent) not in hub.state.every_text()
    config, record = json.loads(text(hub, f"{SEED}/adapter_config.json")), json.loads(text(hub, f"{SEED}/training.json"))
    assert config["base_model_name_or_path"] == "model" == record["base"]["name"] and record["base"]["source"] == "model"
    hashes = {path: hub.repo(REPO, kind="model").head.files[f"{SEED}/{path}"].sha256 for path in record["files"]}
    assert hashes == {path: facts["sha256"] for path, facts in record["files"].items()}
    card = text(hub, "README.md")
    assert f"| `{SEED}` | `default` | `default` | `model`, `files " in card and "adapter |" in card
    found = client(
        hub,
        f"""
import json
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained({str(base)!r})
model = PeftModel.from_pretrained(base, {REPO!r}, subfolder={SEED!r})
print(json.dumps(sum(float(value.abs().sum()) for name, value in model.named_parameters() if "lora_B" in name)))
""",
    )
    assert found > 0, "the trained half of the adapter came along"


def test_a_second_time_makes_no_commit_and_other_models_stay(hub: FakeHub, built: Path) -> None:
    published(hub, built, f"models_repo={REPO}", repo=None)
    repo = hub.repo(REPO, kind="model")
    theirs = hub.state.store(b"{}")
    repo.commit("another", "", repo.head.files | {"other.arm/seed-9/training.json": theirs, f"{SEED}/optimizer.pt": theirs})
    published(hub, built, f"models_repo={REPO}", repo=None)
    assert "other.arm/seed-9/training.json" in files(hub) and f"{SEED}/optimizer.pt" not in files(hub)
    commits = len(repo.commits)
    assert published(hub, built, f"models_repo={REPO}", repo=None).startswith("unchanged, no commit")
    assert len(repo.commits) == commits == 4 and repo.commits[1].title == "small: 1 model"
    assert repo.commits[1].description.startswith(f"+ {SEED}\n")


def test_merged_adapters_are_whole_models(hub: FakeHub, built: Path) -> None:
    published(hub, built, f"models_repo={REPO}", "merged=true", repo=None)
    assert f"{SEED}/model.safetensors" in files(hub) and f"{SEED}/adapter_config.json" not in files(hub)
    record = json.loads(text(hub, f"{SEED}/training.json"))
    assert record["is_adapter"] is False and record["merged"] is True
    assert "merged into its base" in text(hub, "README.md") and "library_name: transformers" in text(hub, "README.md")
    merged, base = tensors(hub.state.content(REPO, f"{SEED}/model.safetensors", kind="model")), tensors(model_file(built))
    assert set(merged) == set(base) and not [name for name in merged if "lora" in name]
    changed = {name for name in merged if bool((merged[name] != base[name]).any())}
    assert changed and all("proj" in name for name in changed)
    assert published(hub, built, f"models_repo={REPO}", "merged=true", repo=None).startswith("unchanged, no commit")


def test_models_and_datasets_go_to_two_repositories_at_once(hub: FakeHub, built: Path) -> None:
    lines = published(hub, built, f"models_repo={REPO}", "seeds=0").splitlines()
    assert len(lines) == 2 and hub.repo(hub_world.REPO).private and hub.repo(REPO, kind="model").private
    listed = publish(hub, built, f"models_repo={REPO}", "dry_run=true", repo=None).stdout
    assert {line.split()[1] for line in listed.splitlines()[1:]} == set(files(hub)) - {".gitattributes"}


@pytest.mark.parametrize("words", [{"seeds": "7"}, {"models": "elsewhere"}, {"arms": ARMS[0]}])
def test_models_that_are_not_there_are_refused(built: Path, words: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="models_repo=ann/models: the run has no such trained model; there are: "):
        publish_here(built, hub_options({"models_repo": REPO, **words}), screen=Screen(out=StringIO(), err=StringIO()))


def test_a_key_in_a_models_card_stops_it(hub: FakeHub, built: Path, tmp_path: Path) -> None:
    run = hub_world.copy_run(built, tmp_path / "run")
    (run / "models" / SEED / "README.md").write_text("sk-planted-4711-0815-abcdefgh")
    done = publish(hub, run, f"models_repo={REPO}", repo=None, MY_API_KEY="sk-planted-4711-0815-abcdefgh")
    assert f"{SEED}/README.md: holds the value of MY_API_KEY" in refusal(done) and not hub.state.repos
