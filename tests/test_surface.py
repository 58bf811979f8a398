"""The public surface: `__all__` is what there is, nothing less and nothing more."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import recontext_data
from recontext_data.core import errors

PUBLIC = [
    "AnyJudge",
    "AnyPolicy",
    "Asker",
    "BuildStopped",
    "Candidate",
    "Comparer",
    "Config",
    "Context",
    "DataError",
    "Deriver",
    "Environment",
    "EvaluationResults",
    "FakePolicy",
    "GateFailed",
    "InputError",
    "Judgement",
    "LedgerEntry",
    "LoadedRecipe",
    "Match",
    "Message",
    "Messages",
    "Policy",
    "PolicyError",
    "Preview",
    "ProofFailed",
    "PublishError",
    "Reader",
    "Recipe",
    "RecipeError",
    "RecontextError",
    "RecontextualizedRows",
    "Reply",
    "Request",
    "Run",
    "RunArm",
    "SamplingParams",
    "SandboxMissing",
    "SetupError",
    "StoreError",
    "Task",
    "TaskSet",
    "TrainedModel",
    "chosen",
    "entry",
    "load",
    "open_run",
    "recontextualize",
    "render",
    "require_unique",
    "uniform",
]


def test_the_surface_is_what_it_says() -> None:
    assert recontext_data.__all__ == PUBLIC
    for name in set(PUBLIC) - {"Messages"}:  # a type alias has neither
        assert getattr(recontext_data, name).__module__.startswith("recontext_data.")
        assert getattr(recontext_data, name).__doc__
    own = {name for name in vars(recontext_data) if not name.startswith("_")}
    modules = {module.name for module in pkgutil.iter_modules(recontext_data.__path__)}
    assert own - modules - set(PUBLIC) <= {"Any", "TYPE_CHECKING"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = recontext_data.nothing


def test_the_types_that_are_shown_to_type_checkers_are_those_at_run_time() -> None:
    from recontext_data.contexts.context import render
    from recontext_data.policies.fake import FakePolicy

    assert recontext_data.render is render
    assert recontext_data.FakePolicy is FakePolicy


def test_every_error_is_in_the_tree_and_is_a_standard_one_too() -> None:
    own = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(own) >= 10
    for kind in own:
        assert issubclass(kind, errors.RecontextError)
        assert kind.__name__ in (errors.__doc__ or "")
        assert kind.exit_code in (1, 2)
        if kind is not errors.RecontextError:
            assert issubclass(kind, (ValueError, RuntimeError, OSError))


def test_every_module_says_what_it_is() -> None:
    for module in pkgutil.walk_packages(recontext_data.__path__, "recontext_data."):
        if module.ispkg or module.name.endswith("__main__"):
            continue
        assert importlib.import_module(module.name).__doc__, module.name


def test_no_module_is_over_400_lines_and_no_function_over_50() -> None:
    long = []
    for path in Path(recontext_data.__path__[0]).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            long.append(path.name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 50:
                long.append(f"{path.name}: {node.name}")
    assert long == []


def test_did_you_mean_suggests_or_lists() -> None:
    assert errors.did_you_mean("sampler_", ["sampler", "select"]) == "did you mean 'sampler'?"
    assert errors.did_you_mean("xyz", ["b", "a"]) == "known: a, b"
    assert errors.did_you_mean("xyz", []) == "none are known"
