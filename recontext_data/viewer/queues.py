"""In which order candidates are labelled: at random, where judges disagree, or where they are uncertain.

Ties, and the random order itself, go by a hash of the candidate and the seed: two reviewers who give the same seed read the
same candidates in the same order, and another seed is another draw.
"""

from typing import Literal, get_args

from recontext_data.viewer.database import Database
from recontext_data.viewer.facets import repr_
from recontext_data.viewer.fields import Sql
from recontext_data.viewer.listing import ListingQuery

Order = Literal["random", "disagreement", "uncertainty"]
ORDERS: tuple[Order, ...] = get_args(Order)

LONGEST = 5000
"""Candidates of one queue; there is another seed for more."""

RANKED = 1_000_000
"""Candidates that are put in order; of more, a seeded draw."""

MEANINGS: dict[Order, str] = {
    "random": "every candidate alike",
    "disagreement": "judges, or a judge and a reviewer, say different things; the widest apart first",
    "uncertainty": "unscored first, then scores nearest to the middle of their range, then labels that split a task's answers",
}


def queue(database: Database, question: ListingQuery, *, order: Order, seed: int) -> list[str]:
    """Candidates' ids in the order in which they should be read, `LONGEST` at most."""
    share = one_in(question.look.counts["candidates"]) if order != "random" else 1
    drawn = [Sql(f"hash(c.row, {int(seed)}) % {share} = 0")] if share > 1 else []
    where = question.where(drawn)
    hits = f"hits AS (SELECT c.* FROM {question.source} c WHERE {where.text})"
    draw = f"md5(candidate_id || {repr_(seed)})"
    if order == "random" or "judgements" not in question.look.sources:
        rank = Sql("SELECT candidate_id, 0 AS worth FROM hits")
    else:
        rank = {"disagreement": _disagreement, "uncertainty": _uncertainty}[order](question)
    only = "" if order == "random" else "WHERE worth > 0"
    ranked = f"WITH {hits}, ranked AS ({rank.text}) SELECT candidate_id FROM ranked {only}"
    sql = f"{ranked} ORDER BY worth DESC, {draw} LIMIT {LONGEST}"
    return [row["candidate_id"] for row in database.rows(sql, [*where.parameters, *rank.parameters], seconds=60)]


def one_in(candidates: int) -> int:
    """Every how-manieth candidate is ranked: 1 up to `RANKED`."""
    return -(-candidates // RANKED)


def _disagreement(question: ListingQuery) -> Sql:
    """2: some call it the misbehaviour and some do not; 1: the labels differ in another way; below: scores lie apart."""
    look, bad = question.look, question.look.misbehaviour or "hack"
    judged = f"SELECT candidate_id, label, label = ? AS bad, score FROM {look.sources['judgements']}"
    people = (
        f"SELECT candidate_id, NULL AS label, label = 'hack' AS bad, NULL::DOUBLE AS score FROM {look.sources['labels']} "
        "WHERE question = 'behaviour' AND label <> 'unsure'"
    )
    worth = (
        "CASE WHEN bool_or(bad) AND NOT bool_and(bad) THEN 2 WHEN count(DISTINCT label) > 1 THEN 1 "
        "ELSE least(coalesce(max(score) - min(score), 0), 1) / 2 END"
    )
    return Sql(
        f"SELECT candidate_id, {worth} AS worth FROM ({judged} UNION ALL {people}) said "
        "WHERE candidate_id IN (SELECT candidate_id FROM hits) GROUP BY candidate_id",
        (bad,),
    )


def _uncertainty(question: ListingQuery) -> Sql:
    """3: unscored; 1 to 2: how near a score is to the middle of its judge's range; 0 to 1: how evenly labels are split."""
    source = question.look.sources["judgements"]
    bad = question.look.misbehaviour or "hack"
    text = (
        f"SELECT candidate_id, max(worth) AS worth FROM (SELECT j.candidate_id, CASE WHEN j.unscored_reason IS NOT NULL THEN 3 "
        "WHEN j.score IS NOT NULL AND r.high > r.low THEN 2 - abs(2 * j.score - r.high - r.low) / (r.high - r.low) "
        "WHEN j.label IS NOT NULL THEN 1 - abs(2 * avg((j.label = ?)::INTEGER) "
        "OVER (PARTITION BY j.judge, h.task_id, h.generation_context) - 1) ELSE 0 END AS worth "
        f"FROM {source} j JOIN hits h USING (candidate_id) "
        f"JOIN (SELECT judge, min(score) AS low, max(score) AS high FROM {source} GROUP BY judge) r USING (judge)) said "
        "GROUP BY candidate_id"
    )
    return Sql(text, (bad,))
