"""A cheap detector: a linear classifier learnt from labelled answers. Needs `pip install 'recontext_data[classifier]'`.

    - {kind: classifier, name: detector, examples: labelled.jsonl, positive: hack, negative: general}

`examples` are lines of {"completion": ..., "label": ...} or a Parquet file with these columns. It reads the answer's words
and pairs of words, hashed, or vectors of the user's (`embeddings`). How often it is wrong is measured by cross-validation
on the examples, before anything is sampled, and stands in the manifest and on every card: a number about answers like the
examples, which says nothing about others. The same examples in any order give the same judge.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from recontext_data.core.config import Config
from recontext_data.core.errors import DataError, SetupError, did_you_mean
from recontext_data.core.records import Candidate, Judgement, content_hash

if TYPE_CHECKING:
    import numpy as np

FEATURES = 2**18
"""Hashed words and pairs of words: far more than an answer has, so that few share a place."""
TOKENS = r"(?u)\w+|[^\w\s]"
"""Words and single signs: in code, signs tell much."""
DIGITS = 6
"""Of a score. Beyond them machines differ."""
NOT_EMBEDDED = "there is no embedding of it"

Example = tuple[str, str]
"""(completion, label)."""


class ClassifierJudge(Config):
    """Labels a candidate as a linear classifier does that was trained on labelled answers; the score is its probability."""

    kind: Literal["classifier"] = "classifier"
    name: str = "classifier"
    """The judge's name in tables."""
    examples: str
    """A file of labelled answers: .jsonl or .parquet with `completion` and `label`."""
    positive: str
    """The label that it looks for."""
    negative: str
    """The other one. Examples with any other label are an error."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """The probability of `positive` from which on it says so."""
    embeddings: str | None = None
    """A .parquet file with `completion` and `embedding` (numbers, all of one length) of the examples and the candidates:
    classify by these instead of by words. A candidate that is not in it is unscored."""
    strength: float = Field(default=1.0, gt=0)
    """How closely it follows the examples: the inverse of the penalty on its weights."""
    folds: int = Field(default=5, ge=2)
    """Parts of the cross-validation. Equal answers are in one part."""
    seed: int = 0
    """Decides which answers are in which part."""

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.positive == self.negative:
            raise ValueError(f"positive: {self.positive!r} is what `negative` says too; the labels must differ")
        return self

    @property
    def labels(self) -> Sequence[str]:
        return (self.negative, self.positive)

    @property
    def gives_scores(self) -> bool:
        return True

    @property
    def content(self) -> dict[str, Any]:
        """What the rows that come of it depend on: the examples and vectors that it reads, and not where their files lie."""
        read = {"examples": content_hash(_examples(self.examples, _state(self.examples), self.labels))}
        if self.embeddings is not None:
            vectors = _vectors(self.embeddings, _state(self.embeddings))
            read["embeddings"] = content_hash(sorted((text, vector.tolist()) for text, vector in vectors.items()))
        return {**self.model_dump(mode="json", exclude={"examples", "embeddings"}), **read}

    def measured(self) -> Mapping[str, Any]:
        """What cross-validation found: examples, positives, folds, caught (of the positives), false_alarms (of the others),
        and the library's version.

        Raises:
            DataError: the examples cannot be read, or are too few of a label.
            SetupError: scikit-learn is not installed.
        """
        return self._learned().measured

    def judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        """One judgement per candidate, in order.

        Raises:
            DataError, SetupError: as `measured`.
        """
        chances = self._learned().chances([candidate.completion for candidate in candidates])
        return [self._judgement(one.candidate_id, chance) for one, chance in zip(candidates, chances, strict=True)]

    def _judgement(self, candidate_id: str, chance: float | None) -> Judgement:
        is_positive = chance is not None and chance >= self.threshold
        return Judgement(
            candidate_id=candidate_id,
            judge=self.name,
            label=None if chance is None else self.positive if is_positive else self.negative,
            score=chance,
            unscored_reason=NOT_EMBEDDED if chance is None else None,
            raw="" if chance is None else f"{self.positive} with probability {chance:g}",
        )

    def _learned(self) -> "_Learned":
        files = [self.examples, *([self.embeddings] if self.embeddings is not None else [])]
        return _learned(self.model_dump_json(), tuple(_state(file) for file in files))


@dataclass(frozen=True)
class _Learned:
    """A classifier that was trained, and what is known of its errors."""

    model: Any
    vectors: "Mapping[str, np.ndarray] | None"
    measured: Mapping[str, Any]

    def chances(self, texts: Sequence[str]) -> list[float | None]:
        """The probability of the positive label of each text; None for a text without a vector."""
        known = [text for text in dict.fromkeys(texts) if self.vectors is None or text in self.vectors]
        if not known:
            return [None] * len(texts)
        found = self.model.predict_proba(_features(known, self.vectors))[:, 1]
        chances = {text: round(float(chance), DIGITS) for text, chance in zip(known, found, strict=True)}
        return [chances.get(text) for text in texts]


@functools.lru_cache(maxsize=8)
def _learned(config_json: str, states: tuple[tuple[int, int], ...]) -> _Learned:
    """Trained once per process: the judge stage asks batch by batch."""
    config = ClassifierJudge.model_validate_json(config_json)
    try:
        import sklearn
    except ImportError:
        raise SetupError(f"judges: {config.name}: needs scikit-learn: pip install 'recontext_data[classifier]'") from None
    examples = _examples(config.examples, states[0], config.labels)
    vectors = None if config.embeddings is None else _vectors(config.embeddings, states[1])
    _require_enough(config, examples, vectors)
    truth = [label == config.positive for _, label in examples]
    features = _features([text for text, _ in examples], vectors)
    measured = {
        "examples": len(examples),
        "positives": sum(truth),
        "folds": config.folds,
        **_cross_validated(config, features, truth, [text for text, _ in examples]),
        "library": f"scikit-learn {sklearn.__version__}",
    }
    return _Learned(_model(config).fit(features, truth), vectors, measured)


def _model(config: ClassifierJudge) -> Any:
    from sklearn.linear_model import LogisticRegression

    # liblinear visits examples in an order that its seed decides, on one thread: the same weights every time. Balanced, since
    # examples are rarely as frequent as what they are examples of.
    return LogisticRegression(C=config.strength, solver="liblinear", class_weight="balanced", random_state=0, max_iter=1000)


def _features(texts: Sequence[str], vectors: "Mapping[str, np.ndarray] | None") -> Any:
    import numpy as np

    if vectors is not None:
        return np.stack([vectors[text] for text in texts])
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(n_features=FEATURES, ngram_range=(1, 2), token_pattern=TOKENS, alternate_sign=False)
    return hashing.transform(texts)


def _cross_validated(config: ClassifierJudge, features: Any, truth: list[bool], texts: list[str]) -> dict[str, int]:
    """How many positives were caught and how many others were taken for one, by models that had not seen them."""
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold

    labels, said = np.array(truth), np.zeros(len(truth), dtype=bool)
    folds = StratifiedGroupKFold(n_splits=config.folds, shuffle=True, random_state=config.seed)
    for seen, held in folds.split(features, labels, groups=texts):
        if labels[seen].all() or not labels[seen].any():
            raise DataError(
                f"judges: {config.name}: examples={config.examples}: a part has one label only; lower `folds` or add some"
            )
        said[held] = _model(config).fit(features[seen], labels[seen]).predict_proba(features[held])[:, 1] >= config.threshold
    return {"caught": int((said & labels).sum()), "false_alarms": int((said & ~labels).sum())}


def _require_enough(config: ClassifierJudge, examples: Sequence[Example], vectors: "Mapping[str, np.ndarray] | None") -> None:
    where = f"judges: {config.name}: examples={config.examples}"
    texts = Counter(label for _, label in set(examples))
    few = next((label for label in config.labels if texts[label] < config.folds), None)
    if few is not None:
        raise DataError(
            f"{where}: {texts[few]} different answers are {few!r} and {config.folds} folds need as many; "
            "add some, or lower `folds`"
        )
    missing = 0 if vectors is None else sum(text not in vectors for text, _ in examples)
    if missing:
        raise DataError(f"{where}: {missing} examples have no vector in embeddings={config.embeddings}; embed them too")


def _state(path: str) -> tuple[int, int]:
    """What changes when a file is written: a cache must not outlive it."""
    try:
        found = Path(path).expanduser().stat()
    except OSError as error:
        raise DataError(f"judges: {path}: cannot be read: {error.strerror}") from None
    return found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=8)
def _examples(path: str, state: tuple[int, int], labels: tuple[str, ...]) -> list[Example]:
    """The examples, sorted: their order in the file means nothing."""
    found: list[Example] = []
    for number, row in enumerate(_rows(path, ["completion", "label"]), 1):
        text, label = row.get("completion"), row.get("label")
        if not isinstance(text, str) or not isinstance(label, str):
            raise DataError(
                f"judges: examples={path}, row {number}: needs `completion` and `label`, both text; found {str(row)[:80]}"
            )
        if label not in labels:
            raise DataError(f"judges: examples={path}, row {number}: label {label!r}; {did_you_mean(label, labels)}")
        found.append((text, label))
    return sorted(found)


@functools.lru_cache(maxsize=2)
def _vectors(path: str, state: tuple[int, int]) -> "dict[str, np.ndarray]":
    import numpy as np

    found = {}
    for number, row in enumerate(_rows(path, ["completion", "embedding"]), 1):
        vector = np.asarray(row.get("embedding") or [], dtype=np.float64)
        if not vector.size or not np.isfinite(vector).all():
            raise DataError(f"judges: embeddings={path}, row {number}: `embedding` must be a list of numbers")
        found[str(row["completion"])] = vector
    if len({vector.shape for vector in found.values()}) > 1:
        raise DataError(f"judges: embeddings={path}: the vectors differ in length; use one model for all of them")
    return found


def _rows(path: str, columns: list[str]) -> list[dict[str, Any]]:
    import orjson

    file = Path(path).expanduser()
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet as pq

            table = pq.read_table(file, columns=columns)
            if missing := [name for name in columns if name not in table.column_names]:
                raise ValueError(f"there is no column {missing[0]!r}")
            rows: list[Any] = table.to_pylist()
        else:
            rows = [orjson.loads(line) for line in file.read_bytes().splitlines() if line.strip()]
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are of these kinds, and so are orjson's
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(
            f"judges: {path}: cannot be read: {why}; give .jsonl or .parquet with {' and '.join(columns)}"
        ) from None
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"judges: {path}: a line is not an object with {' and '.join(columns)}")
    return rows
