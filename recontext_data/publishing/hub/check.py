"""Reads a dataset back from the Hub with `datasets.load_dataset`, as anyone would, and compares its rows with the run's."""

import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recontext_data.core.errors import BuildStopped
from recontext_data.publishing.hub.data import GROUP_ROWS, Split
from recontext_data.publishing.hub.errors import first_words
from recontext_data.publishing.hub.fingerprint import Fingerprint

if TYPE_CHECKING:
    from recontext_data.reports.screen import Screen


def check_rows(repo: str, splits: Sequence[Split], *, revision: str, screen: "Screen") -> None:
    """Streams every split of one commit, past every cache.

    Raises:
        BuildStopped: the Hub gives back other rows, or none.
    """
    with (
        screen.stage("read back", sum(split.rows for split in splits), unit="rows") as tracker,
        tempfile.TemporaryDirectory(prefix="recontext-hub-") as cache,
    ):
        for split in splits:
            found = read_back(repo, split.arm, split.name, revision=revision, cache=cache, tracker=tracker)
            if found.hexdigest() != split.fingerprint:
                raise BuildStopped(
                    f"repo={repo}: {split.arm}, {split.name}: the Hub gives back {found.num_rows:,} rows with fingerprint "
                    f"{found.hexdigest()[:16]}, and the run has {split.rows:,} with {split.fingerprint[:16]}; "
                    "do not use this revision; publish again"
                )


def read_back(repo: str, arm: str, split: str, *, revision: str, cache: str, tracker: Any) -> Fingerprint:
    """The fingerprint of one split as `datasets` streams it.

    Raises:
        BuildStopped: it cannot be read.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from httpx2 import HTTPError

    fingerprint = Fingerprint()
    try:
        rows = load_dataset(repo, arm, split=split, revision=revision, streaming=True, cache_dir=cache)
        for table in rows.with_format("arrow").iter(batch_size=GROUP_ROWS):
            fingerprint.update(table)
            tracker.advance(table.num_rows)
    except (DatasetsError, HTTPError, OSError, ValueError) as error:
        raise BuildStopped(
            f"repo={repo}: {arm}, {split}: was sent and cannot be read back ({first_words(error)}); "
            "the same command looks again"
        ) from None
    return fingerprint
