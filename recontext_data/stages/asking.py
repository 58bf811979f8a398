"""Buys the replies of judges that ask a model, and has them read. Paid once, as completions are, and counted apart."""

from collections.abc import Iterator
from typing import Protocol

from recontext_data.judges.base import Asker
from recontext_data.records import Candidate, Judgement


class Counsel(Protocol):
    """Somebody who asks on a judge's behalf."""

    def judge(self, one: Asker, batches: Iterator[list[Candidate]]) -> Iterator[list[Judgement]]:
        """The judgements of each batch, one per candidate, in order."""
        ...
