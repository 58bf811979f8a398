"""The documentation of config fields: the string under each, read from the source when somebody asks.

Pydantic can do this as each class is made (`use_attribute_docstrings`); that takes a fifth of the time to start.
"""

import ast
import functools
import sys
from pathlib import Path

from recontext_data.core.config import Config


def field_docs(config: type[Config]) -> dict[str, str]:
    """Field name -> its documentation in one line; a field that a class does not document itself has its base's."""
    docs: dict[str, str] = {}
    for one in reversed(config.__mro__):
        path = sys.modules[one.__module__].__file__ if issubclass(one, Config) else None
        docs |= _of_module(path).get(one.__name__, {}) if path else {}
    return {name: text for name, text in docs.items() if name in config.model_fields}


@functools.cache
def _of_module(path: str) -> dict[str, dict[str, str]]:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    return {node.name: _of_class(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _of_class(node: ast.ClassDef) -> dict[str, str]:
    docs = {}
    for field, after in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            docs[field.target.id] = " ".join(after.value.value.split())
    return docs
