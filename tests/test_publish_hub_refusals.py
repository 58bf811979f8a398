"""Who may publish where, and what each refusal says: one line, nothing made, nothing sent."""

from pathlib import Path
from typing import Any

import pytest

from recontext_data.config.options import help_lines
from recontext_data.core.errors import RecipeError
from recontext_data.publishing.hub.options import HubOptions, hub_options
from recontext_data.publishing.hub.publish import publish as publish_here
from tests import hub_world
from tests.fake_hub import READ_ONLY, STRANGER, TOKEN, FakeHub
from tests.hub_world import REPO, publish, published, refusal


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_world.make_run(tmp_path_factory.mktemp("built"))


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    with FakeHub(tmp_path / "hub") as server:
        yield server


def test_a_public_repository_is_filled_only_when_that_is_said(hub: FakeHub, run: Path) -> None:
    hub.state.create(REPO, private=False)
    assert "repo=ann/contexts: is public; write private=false" in refusal(publish(hub, run))
    assert len(hub.repo(REPO).commits) == 1
    published(hub, run, "private=false")
    assert len(hub.repo(REPO).commits) == 2
    published(hub, run, "private=false", repo="lab/new")
    assert not hub.repo("lab/new").private
    published(hub, run, repo="lab/private")
    assert "lab/private: is private and stays so" in publish(hub, run, "private=false", repo="lab/private").stderr


def test_somebody_elses_data_is_not_written_over(hub: FakeHub, run: Path) -> None:
    repo = hub.state.create(REPO)
    repo.commit("theirs", "", repo.head.files | {"data/train.csv": hub.state.store(b"a,b\n")})
    assert "repo=ann/contexts: holds data/train.csv and other files that recontext_data did not put there" in refusal(
        publish(hub, run)
    )
    assert len(repo.commits) == 2
    published(hub, run, "overwrite=true")
    assert repo.head.title == "small: 2 arms" and "data/train.csv" not in repo.head.files


@pytest.mark.parametrize(
    ("words", "token", "message"),
    [
        (["repo=ann/x"], None, "no token for the Hub: set HF_TOKEN, or run `hf auth login`"),
        (["repo=ann/x"], "hf_nobodysTokenAtAll000000000000000000", "repo=ann/x: the Hub does not take the token"),
        (["repo=ann/x"], READ_ONLY, "repo=ann/x: the token may not do this (You don't have the rights to create"),
        (["repo=lab/shared"], READ_ONLY, "repo=lab/shared: the token may not do this (Forbidden: you must use a write token"),
        (["repo=lab/shared"], STRANGER, "repo=lab/shared: the token may not do this"),
        (["repo=nobody/x"], TOKEN, "repo=nobody/x: the token may not do this"),
        (["repo=ann/x", "create=false"], TOKEN, "repo=ann/x: there is no such repository, or the token may not see it"),
        (["repo=ann/x", "licence=nonsense"], TOKEN, 'repo=ann/x: the Hub refuses the card\'s header: "license" must be one of'),
        (["repo=lab/shared", "tag=v1"], TOKEN, "tag=v1: names revision"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(
    hub: FakeHub, run: Path, words: list[str], token: str | None, message: str
) -> None:
    shared = hub.state.create("lab/shared")
    shared.tags["v1"] = shared.head.oid
    assert message in refusal(publish(hub, run, *words, repo=None, token=token))
    assert list(hub.state.repos) == [("dataset", "lab/shared")] and len(shared.commits) == 1 and not hub.state.uploaded


def test_a_login_is_found_where_the_hubs_tools_keep_it(hub: FakeHub, run: Path) -> None:
    home = Path(hub.environment()["HF_HOME"])
    home.mkdir()
    (home / "token").write_text(TOKEN)
    published(hub, run, token=None)
    assert len(hub.repo(REPO).commits) == 2


def test_help_has_every_option(hub: FakeHub, run: Path) -> None:
    done = publish(hub, run, "--help")
    assert done.returncode == 0 and hub.requests == []
    for name, (type_, meaning) in help_lines(HubOptions).items():
        assert f"{name}: {type_}\n    {meaning}" in done.stdout


def test_every_option_is_in_the_documentation() -> None:
    page = (Path(__file__).parent.parent / "docs" / "hub.md").read_text(encoding="utf-8")
    assert [name for name in HubOptions.model_fields if f"`{name}" not in page] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"repo": "ann/x", "arms": "standard"}, "arms=standard: the run has no such arm"),
        ({"repo": "x"}, "repo=x: not a repository"),
    ],
)
def test_wrong_words_are_refused_before_the_hub_is_looked_for(run: Path, words: dict[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        publish_here(run, hub_options(words))
