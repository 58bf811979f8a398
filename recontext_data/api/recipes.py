"""Recipes from Python: `load` one by name, path, dict or object, then build or preview it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recontext_data.config import loading
from recontext_data.config.loading import Loaded
from recontext_data.config.recipe import Recipe
from recontext_data.core.config import Config
from recontext_data.core.errors import RecipeError
from recontext_data.core.event_loop import apart

if TYPE_CHECKING:
    from recontext_data.api.runs import Run

Tree = Mapping[str, Any]
"""Plain data, as YAML and JSON give it."""
Overrides = Tree | Sequence[str]
"""`{"sampler.n": 6}` with values of Python, or `["sampler.n=6"]` as on the command line."""


@dataclass(frozen=True)
class LoadedRecipe(Loaded):
    """A validated recipe: `.recipe` is the config, `.name` its name, `.origins` where each value comes from."""

    def build(self, *, output: str | Path = ".", progress: bool = True) -> "Run":
        """Builds the datasets, or only what is missing of them, and returns the run.

        Args:
            output: the folder of runs/ and replies/.
            progress: whether progress and notes are written to standard error; warnings always are.

        Raises:
            RecontextError: of any kind, with the message of the command line; what was sampled is kept, and the same call
                continues.
        """
        from recontext_data.api.runs import build_run

        return apart(partial(build_run, self, output=Path(output), progress=progress))

    def preview(self, *, output: str | Path = ".", examples: int = 2) -> "Preview":
        """Every context and arm on a few tasks, and what a build would sample and cost. Nothing is sampled or written.

        Raises:
            RecontextError: what is wrong with the recipe, as a build would say it.
        """
        return apart(partial(_preview, self, output=Path(output), examples=examples))


@dataclass(frozen=True)
class Preview:
    """The prompts of a recipe and the plan of its build; shown as a page in a notebook."""

    prompts: Tree
    """`contexts` (name, stance, placement, prompts) and `arms` (name, kind, pair, prompts under both contexts)."""
    plan: Tree
    """As `dry_run=true` prints it: `pools` with what is wanted, found and to be sampled, tokens and cost in USD."""
    html: str
    """The page that `recontext preview` writes."""

    def _repr_html_(self) -> str:
        import html

        return f'<iframe srcdoc="{html.escape(self.html, quote=True)}" style="width:100%;height:600px;border:0"></iframe>'


def load(source: str | Path | Tree | Recipe, overrides: Overrides = (), *, name: str = "recipe") -> LoadedRecipe:
    """A recipe that can be built.

    Args:
        source: the name of a shipped recipe, the path of a YAML file, a recipe as plain data, or a `Recipe`.
        overrides: changes by dotted key, as a mapping or as `key=value` texts.
        name: the recipe's name in runs/, for plain data and a `Recipe`; a file's own name otherwise.

    Raises:
        RecipeError: one line with the key, the value and the fix.
    """
    if isinstance(overrides, str):
        raise RecipeError(f"overrides={overrides!r}: is a text; give a list, such as [{overrides!r}], or a mapping")
    if not name or name != Path(name).name or name.startswith("."):
        raise RecipeError(f"name={name!r}: becomes a folder below runs/; give a name without '/' that does not begin with '.'")
    if isinstance(source, str | Path):
        path, tree, origins = loading.read_tree(str(source))
        name, said = path.stem, path.name
    else:
        tree = _plain(source)
        origins, said = {}, name
        if "extends" in tree:
            raise RecipeError(f"{name}: extends: belongs into a file; load that recipe and pass the changes as overrides")
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            loading.put(tree, key, _plain(value))
            origins = {known: origin for known, origin in origins.items() if not f"{known}.".startswith(f"{key}.")}
            origins[key] = "overrides"
    else:
        tree = loading.overridden(tree, overrides)
        origins |= {override.partition("=")[0]: "overrides" for override in overrides}
    found = loading.validated(name, tree, origins, said=said)
    return LoadedRecipe(found.name, found.recipe, found.origins)


def _plain(value: Any) -> Any:
    """New data as a file would give it: configs, such as a `Context`, become mappings; the caller's own is never changed."""
    if isinstance(value, Config):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _preview(loaded: Loaded, *, output: Path, examples: int) -> Preview:
    from recontext_data.pipeline.preparation import forecast, prepared
    from recontext_data.pipeline.preview import shown_prompts
    from recontext_data.reports.preview import page
    from recontext_data.store.replies import ReplyStore

    build = prepared(loaded.name, loaded.recipe, output=output)
    found = shown_prompts(build, examples=examples)
    plan = forecast(build, ReplyStore(output / "replies"))
    return Preview(found, plan, page(found, plan))
