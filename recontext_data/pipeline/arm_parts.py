"""Stage parts: kept candidates of an arm in, the same out with a column that says what each row is made from.

Between completion and recontextualize, for arms with `where` (only rows that a judge flags are recontextualized) or `mix`
(other data among the rows). Part 0 is the arm as declared, then the rows that `where` leaves, then each mixture; rows stand
in that order.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from recontext_data.contexts.arms import Arm, Mix
from recontext_data.core.records import uniform
from recontext_data.core.row_ledger import LedgerEntry, entry
from recontext_data.pipeline.select import with_labels

if TYPE_CHECKING:
    import polars as pl

PART = "part"


def divide(kept: "pl.DataFrame", judged: "pl.DataFrame", *, arm: Arm, name: str) -> "tuple[pl.DataFrame, list[LedgerEntry]]":
    """The candidates with their part by `arm.where`: 0 where each judge gave one of its labels, else 1; without `where` all 0.

    What one of the judges gave no label is dropped: to call it not flagged would be a guess. `judged`: candidates joined with
    judgements, a row per candidate and judge.
    """
    import polars as pl

    if not arm.where:
        return kept.with_columns(pl.lit(0, dtype=pl.Int64).alias(PART)), []
    labelled = with_labels(kept.select("candidate_id"), judged, judges=list(arm.where))
    columns = {judge: pl.col(f"{judge}.label") for judge in arm.where}
    missing = pl.coalesce([pl.when(label.is_null()).then(pl.lit(f"{judge} gave no label")) for judge, label in columns.items()])
    flagged = pl.all_horizontal([label.is_in(arm.where[judge]) for judge, label in columns.items()])
    marks = labelled.select("candidate_id", missing.alias("missing"), pl.when(flagged).then(0).otherwise(1).alias(PART))
    divided = kept.join(marks, on="candidate_id", how="left", maintain_order="left", validate="1:1")
    drops = divided["missing"].drop_nulls().to_list()
    stays = divided.filter(pl.col("missing").is_null()).drop("missing").cast({PART: pl.Int64})
    done = entry("divide", name, rows_in=len(kept), kept=len(stays), drops=drops)
    return stays.sort(PART, maintain_order=True), [done]


def mixed(
    kept: "pl.DataFrame", *, arm: Arm, name: str, given: "Mapping[str, pl.DataFrame]"
) -> "tuple[pl.DataFrame, list[pl.DataFrame], list[LedgerEntry]]":
    """The candidates with those of `arm.mix` after them; for each mixture its selection and its ledger entry.

    How many are drawn follows from the rows that are there before any mixture, so the order of mixtures does not matter.
    """
    import polars as pl

    frames, tables, entries = [kept], [], []
    for number, mix in enumerate(arm.mix, start=2 if arm.where else 1):
        pool = given[mix.source]
        drawn = _drawn(pool, mix, count=round(mix.weight * len(kept)))
        frames.append(drawn.with_columns(pl.lit(number, dtype=pl.Int64).alias(PART)))
        is_in = pl.col("candidate_id").is_in(drawn["candidate_id"].to_list())
        reason = pl.when(is_in).then(pl.lit("mixed in")).otherwise(pl.lit("not drawn"))
        tables.append(pool.select(arm=pl.lit(name), candidate_id="candidate_id", kept=is_in, reason=reason))
        drops = ["not drawn"] * (len(pool) - len(drawn))
        entries.append(entry("mix", f"{name} / {mix.source}", rows_in=len(pool), kept=len(drawn), drops=drops))
    return pl.concat(frames, how="diagonal_relaxed") if arm.mix else kept, tables, entries


def _drawn(pool: "pl.DataFrame", mix: Mix, *, count: int) -> "pl.DataFrame":
    """`count` rows of the pool, or all where it has fewer, in its order: which, by seeded hash of what they say."""
    import polars as pl

    draws = pl.Series([uniform("mix", mix.seed, key) for key in pool["reply_key"]], dtype=pl.Float64)
    places = draws.rank("ordinal")
    return pool.filter(places <= count)


def short_of(kept: "pl.DataFrame", *, arm: Arm) -> list[str]:
    """What to say of mixtures whose file had fewer rows than its weight asks for."""
    numbers = dict(enumerate(arm.mix, start=2 if arm.where else 1))
    own = len(kept.filter(~kept[PART].is_in(list(numbers))))
    words = []
    for number, mix in numbers.items():
        taken, asked = len(kept.filter(kept[PART] == number)), round(mix.weight * own)
        if taken < asked:
            words.append(
                f"arms: mix {mix.source}: weight {mix.weight:g} asks for {asked} rows and the file has {taken}; all are taken"
            )
    return words
