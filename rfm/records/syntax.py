"""What a function does, as data that every version of Python makes alike: its syntax tree instead of its bytecode."""

import ast
import functools
import linecache
from types import CodeType
from typing import Any

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def syntax(code: CodeType) -> Any:
    """Return the arguments and the body of the function that ``code`` was compiled from, as nested lists.

    Comments, the layout of lines, docstrings and annotations do not count. None where there is no source: for what
    ``exec`` made, or a file that has gone or is another one now.
    """
    definition = _definition(code)
    if definition is None or [a.arg for a in _arguments(definition)] != list(code.co_varnames[: _count(code)]):
        return None
    return [_plain(definition.args), _plain(definition.body)]


def _definition(code: CodeType) -> _Definition | None:
    """Return the definition that begins at the line of ``code``; of several lambdas there, the one at its columns."""
    found = _definitions("".join(linecache.getlines(code.co_filename))).get((code.co_name, code.co_firstlineno), [])
    if code.co_name != "<lambda>":
        return found[0] if len(found) == 1 else None
    spans = [(line, column, last, end) for line, last, column, end in code.co_positions() if end]
    if not spans:
        # Python 3.12 gives no columns for a constant.
        found = [one for one in found if isinstance(one.body, ast.Constant) and one.body.value in code.co_consts]
        return found[0] if len(found) == 1 else None
    first, last = min(span[:2] for span in spans), max(span[2:] for span in spans)
    around = [one for one in found if _start(one.body) <= first and last <= _end(one.body)]
    # The innermost: what makes a function spans more than that function's body.
    return max(around, key=lambda one: _start(one.body), default=None)


@functools.lru_cache(maxsize=32)
def _definitions(text: str) -> dict[tuple[str, int], list[_Definition]]:
    """Return the definitions of a file by name and first line, decorators included."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return {}
    found: dict[tuple[str, int], list[_Definition]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            found.setdefault(("<lambda>", node.lineno), []).append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found.setdefault((node.name, line), []).append(node)
    return found


def _arguments(definition: _Definition) -> list[ast.arg]:
    """Return the arguments in the order of a function's variables."""
    own = definition.args
    starred = [one for one in (own.vararg, own.kwarg) if one is not None]
    return [*own.posonlyargs, *own.args, *own.kwonlyargs, *starred]


def _count(code: CodeType) -> int:
    varargs, varkeywords = 0x04, 0x08
    return code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & varargs) + bool(code.co_flags & varkeywords)


def _start(body: Any) -> tuple[int, int]:
    return body.lineno, body.col_offset


def _end(body: Any) -> tuple[int, int]:
    return body.end_lineno, body.end_col_offset


def _plain(node: Any) -> Any:
    """Return a node as its name and its fields; fields without content are left out, as older versions lack them."""
    if isinstance(node, list):
        return [_plain(item) for item in node if not _is_docstring(item)]
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__} {node!r}"
    fields = ((name, getattr(node, name, None)) for name in node._fields if name not in _UNCOUNTED)
    return [type(node).__name__, *([name, _plain(value)] for name, value in fields if value not in (None, []))]


def _is_docstring(node: Any) -> bool:
    """Return whether a statement is a text alone, which does nothing wherever it stands."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


_UNCOUNTED = frozenset({"annotation", "returns", "ctx", "kind", "type_comment", "type_params"})
