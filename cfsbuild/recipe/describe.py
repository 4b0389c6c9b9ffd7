"""What the JSON schema and the reference say about parameters that carry no description themselves.

A parameter is described by `msgspec.Meta(description=…)`, or by a string below it, as attributes of classes
are.
"""

from __future__ import annotations

import ast
import inspect
import textwrap

import msgspec


def attribute_texts(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the strings below a struct's fields, by the fields' names as recipes write them."""
    names = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
    texts: dict[str, str] = {}
    for kind in reversed(struct.__mro__):
        if kind.__module__.startswith("cfsbuild"):
            texts.update(_texts_of(kind))
    return {names[name]: text for name, text in texts.items() if name in names}


def _texts_of(kind: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):  # made at run time, or no source installed
        return {}
    body = ast.parse(source).body[0]
    if not isinstance(body, ast.ClassDef):
        return {}
    texts = {}
    for statement, below in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            texts[statement.target.id] = inspect.cleandoc(below.value.value)
    return texts
