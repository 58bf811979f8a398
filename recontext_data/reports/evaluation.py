"""The report of one evaluation: a single HTML page with no script, no network and no hidden characters.

    write_evaluation(folder, results)   # -> folder/report.html

As in `html`, everything that a model or a user wrote reaches the page through the template's autoescape and `show`.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.reports import evaluation_numbers as numbers
from recontext_data.reports.evaluation_costs import cost_rows
from recontext_data.reports.evaluation_figure import evaluation_figure
from recontext_data.reports.evaluation_numbers import BEFORE, Results
from recontext_data.reports.html import page_environment, save_page
from recontext_data.reports.numbers import policy_name
from recontext_data.reports.text import LIMIT

if TYPE_CHECKING:
    from jinja2 import Environment

PUBLISHED = "data/published.yaml"
_HASH_CHARACTERS = 12


def write_evaluation(folder: Path, results: Results) -> Path:
    """Writes `folder/report.html` and its figure alone, `folder/figure.svg`, each whole or not at all; returns the page's path.

    Raises:
        StoreError: the folder cannot be written.
    """
    page, figure = render_evaluation(results), render_figure(results)
    path = save_page(folder / "report.html", page)
    save_page(folder / "figure.svg", figure)
    return path


def render_evaluation(results: Results) -> str:
    """The page, a function of the results alone."""
    return (
        _environment()
        .get_template("evaluation.html.j2")
        .render(
            **_figure_values(results),
            level=numbers.level(results),
            methods="; ".join(dict.fromkeys(cell["rate"]["method"] for cell in results["cells"] if cell["rate"])),
            models=_models(results),
            arms={arm.key: arm for arm in numbers.arms(results)},
            groups=_groups(results),
            marks=numbers.marks(results),
            differences=_differences(results),
            costs=cost_rows(results),
            caveats=_interval_caveats(results),
            arithmetic=numbers.arithmetic(results),
            published=published(results),
            next_commands=_next_commands(results),
            before=BEFORE,
        )
    )


def render_figure(results: Results) -> str:
    """The figure alone, as a file for a paper or a README: it brings its own style and follows light and dark."""
    return _environment().get_template("figure.svg.j2").render(**_figure_values(results))


def _figure_values(results: Results) -> dict[str, Any]:
    return {
        "results": results,
        "bad": results["environment"]["misbehaviour"],
        "finding": numbers.finding(results),
        "figure": evaluation_figure(results),
        "limit": LIMIT,
    }


def _environment() -> "Environment":
    environment = page_environment(LIMIT)
    environment.filters |= {"points": numbers.points, "p": numbers.p_value, "interval": numbers.interval}
    environment.filters |= {"point_interval": numbers.point_interval, "weights": weights, "scored": numbers.scored}
    environment.tests["apart"] = numbers.excludes_zero
    return environment


def _groups(results: Results) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Contexts, each with its cells in the report's order."""
    order = [arm.key for arm in numbers.arms(results)]
    found = {name: [numbers.cell_of(results, arm, name) for arm in order] for name in results["contexts"]}
    return [(name, [cell for cell in cells if cell is not None]) for name, cells in found.items()]


def _models(results: Results) -> list[Mapping[str, Any]]:
    order = [arm.key for arm in numbers.arms(results)]
    return sorted(results["models"], key=lambda model: (order.index(model["arm"]), model["seed"] or 0))


def _differences(results: Results) -> list[Mapping[str, Any]]:
    contexts, order = list(results["contexts"]), [arm.key for arm in numbers.arms(results)]
    return sorted(results["differences"], key=lambda row: (contexts.index(row["context"]), order.index(row["arm"])))


def _interval_caveats(results: Results) -> list[tuple[str, str]]:
    """What intervals do not cover, each caveat once, with the places that it holds for."""
    names = {arm.key: arm.title for arm in numbers.arms(results)}
    places: dict[str, list[str]] = {}
    for cell in results["cells"]:
        # The policy before training is not a training of a seed: what its caveat says of retraining means nothing there.
        if cell["rate"] and cell["rate"]["caveat"] and cell["arm"] in results["arms"]:
            places.setdefault(cell["rate"]["caveat"], []).append(f"{names[cell['arm']]} under {cell['context']}")
    for row in results["differences"]:
        if row["caveat"]:
            place = f"{names[row['arm']]} against {names[row['baseline']]} under {row['context']}"
            places.setdefault(row["caveat"], []).append(place)
    return [(caveat, "; ".join(where)) for caveat, where in places.items()]


def weights(identity: Mapping[str, Any]) -> str:
    """What tells a model's weights from others, shortened: a hash, or a Hub id with its commit, or a server's model."""
    adapter = identity.get("adapter")
    base = identity.get("weights") or identity.get("files")
    own = _start(base) if base else "@".join(str(identity[key])[:60] for key in ("model", "commit") if identity.get(key))
    own = own or f"script: {identity['script']}" if identity.get("script") else own
    return f"{own or 'unknown'} + adapter {_start(adapter)}" if adapter else own or "unknown"


def _start(digest: Any) -> str:
    return str(digest)[:_HASH_CHARACTERS]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """A model under a context: rates before, after the standard arm and after the recontextualized one."""

    model: str
    context: str
    is_first: bool
    """Of its model."""
    is_ours: bool
    before: float | None
    standard: float | None
    recontextualized: float | None

    @property
    def difference(self) -> float | None:
        """Recontextualized minus standard."""
        if self.recontextualized is None or self.standard is None:
            return None
        return self.recontextualized - self.standard


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Others' numbers beside ours."""

    source: str
    noted: str
    setting: str
    remark: str
    rows: Sequence[PublishedRow]


_PAIRS = (BEFORE, "default -> default", "default -> hack")
"""The columns of the comparison."""


def published(results: Results) -> Published | None:
    """Published rates for this environment and the contexts that it shares; None where nothing of ours compares."""
    import yaml

    from recontext_data.core.resources import shipped

    listed = yaml.safe_load(shipped(PUBLISHED).read_text(encoding="utf-8"))
    table = next((table for table in listed if table["environment"] == results["environment"]["kind"]), None)
    contexts = [name for name in table["contexts"] if name in results["contexts"]] if table else []
    ours = _our_arms(results)
    if table is None or not contexts or not ours.keys() & set(_PAIRS[1:]):
        return None
    rows = _rows(
        f"ours: {policy_name(results)}",
        {pair: {name: numbers.rate_of(results, arm, name) for name in contexts} for pair, arm in ours.items()},
        is_ours=True,
    )
    for model, rates in table["models"].items():
        theirs = {pair: dict(zip(table["contexts"], values, strict=True)) for pair, values in rates.items()}
        rows += _rows(model, {pair: {name: known[name] for name in contexts} for pair, known in theirs.items()})
    return Published(rows=rows, noted=str(table["noted"]), **{key: table[key] for key in ("source", "setting", "remark")})


def _our_arms(results: Results) -> dict[str, str]:
    """The measured arm of each published pair, by the pair; of several with one pair, the first."""
    found: dict[str, str] = {}
    for arm in numbers.arms(results):
        if arm.pair or arm.key == BEFORE:
            found.setdefault(arm.pair.replace("→", "->") or BEFORE, arm.key)
    return {pair: arm for pair, arm in found.items() if pair in _PAIRS}


def _rows(model: str, rates: Mapping[str, Mapping[str, float | None]], *, is_ours: bool = False) -> list[PublishedRow]:
    contexts = list(next(iter(rates.values())))
    found = [[rates.get(pair, {}).get(name) for pair in _PAIRS] for name in contexts]
    return [
        PublishedRow(
            model=model,
            context=name,
            is_first=name == contexts[0],
            is_ours=is_ours,
            before=before,
            standard=standard,
            recontextualized=recontextualized,
        )
        for name, (before, standard, recontextualized) in zip(contexts, found, strict=True)
    ]


def _next_commands(results: Results) -> list[str]:
    """What to type when nothing is trained yet: train with the same recipe and options, then this evaluation again."""
    if any(cell["arm"] in results["arms"] for cell in results["cells"]):
        return []
    command = results.get("command") or f"recontext evaluate recipe={results['recipe_name']}"
    kept = [word for word in shlex.split(command)[2:] if not word.startswith("evaluation.")]
    return [shlex.join(["recontext", "train", *kept, "seeds=0,1,2"]), command]
