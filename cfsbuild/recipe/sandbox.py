"""Jinja2 without the parts that reach beyond plain data, or that give another result every time.

Importing this module imports jinja2.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jinja2
import jinja2.meta
import jinja2.nodes
import jinja2.runtime
import jinja2.sandbox
from jinja2.exceptions import SecurityError

from cfsbuild import limits
from cfsbuild.errors import Origin, Problem, RecipeError
from cfsbuild.recipe.problems import suggestion

Found = TypeVar("Found")

_SIZE = limits.TEMPLATE_OUTPUT_BYTES
_INTEGER_BITS = 4096
_WIDTH = 1000
_LAZY_FILTERS = ("batch", "items", "map", "reject", "rejectattr", "select", "selectattr", "slice", "unique")
_SURROGATE = re.compile("[\ud800-\udfff]")
_FORMAT_WIDTH = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?")
_PRINTABLE = (jinja2.Undefined, str, bool, int, float, list, tuple, dict, type(None))


class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """A sandbox that sees plain data only; operators whose result would be enormous are refused."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, sources: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            finalize=_printable,
            loader=jinja2.FunctionLoader(functools.partial(_load, sources)),
        )
        self.sources = sources
        self.compiled: dict[str, jinja2.Template] = {}
        for name in ("lipsum", "cycler", "joiner"):
            del self.globals[name]
        del self.filters["random"]
        self.filters["tojson"] = _to_json
        for name in _LAZY_FILTERS:
            self.filters[name] = _eager(self.filters[name])

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401
        """Return `left operator right`. Raises `SecurityError` if the result would be too large."""
        if operator == "**":
            _check_power(left, right)
        elif operator == "*":
            _check_product(left, right)
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
        elif operator == "+" and isinstance(left, str | list) and isinstance(right, str | list):
            _check_size(len(left) + len(right))
        return super().call_binop(context, operator, left, right)


def _load(sources: Mapping[str, tuple[str, str]], name: str) -> tuple[str, str, Callable[[], bool]] | None:
    if name not in sources:
        return None
    file, text = sources[name]
    # Compiled templates are kept by name, and a name may stand for another file from another directory.
    return text, file, lambda: sources.get(name) == (file, text)


def _printable(value: Any) -> Any:  # noqa: ANN401
    """Let plain data pass: the text of anything else may hold an address, another one every time."""
    if isinstance(value, _PRINTABLE):
        return value
    raise SecurityError(f"a {type(value).__name__} has no text; call it or use a filter")


def _to_json(value: Any, indent: int | None = None) -> str:  # noqa: ANN401
    """Return JSON, without the HTML escapes of Jinja's own filter."""
    return json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False)


def _eager(function: Callable[..., Iterable[Any]]) -> Callable[..., list[Any]]:
    @functools.wraps(function)  # keeps the marks by which Jinja passes the context
    def listed(*args: Any, **options: Any) -> list[Any]:  # noqa: ANN401
        return list(function(*args, **options))

    return listed


def _check_power(left: Any, right: Any) -> None:  # noqa: ANN401
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _INTEGER_BITS:
        raise SecurityError("the result of ** would be too large")


def _check_product(left: Any, right: Any) -> None:  # noqa: ANN401
    for value, count in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(count, int):
            _check_size(len(value) * count)
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() + right.bit_length()
        if bits > _INTEGER_BITS:
            raise SecurityError("the result of * would be too large")


def _check_format(text: str) -> None:
    for match in _FORMAT_WIDTH.finditer(text):
        for width in match.groups():
            if width == "*" or (width and (len(width) > 4 or int(width) > _WIDTH)):
                raise SecurityError(f"a width in a format must be at most {_WIDTH}")


def _check_size(size: int) -> None:
    if size > _SIZE:
        raise SecurityError("the result would be too large")


def references(environment: Environment, text: str, origin: Origin) -> set[str]:
    """Return the variables that a template reads. Raises `RecipeError` for bad syntax."""
    return set(_analyse(environment, text, jinja2.meta.find_undeclared_variables, origin, ""))


def referenced_files(environment: Environment, text: str, origin: Origin, *, file: str = "") -> list[str]:
    """Return the names of the templates that a template includes, imports or extends.

    `file` is set if the template is a file of its own. Raises `RecipeError` for bad syntax, and for names
    that are not written out.
    """
    names = _analyse(environment, text, jinja2.meta.find_referenced_templates, origin, file)
    if None in names:
        brief = "a template includes another whose name is not written out"
        raise _error(brief, "", "write the file name as a string", origin)
    return [name for name in names if name is not None]


def _analyse(
    environment: Environment,
    text: str,
    find: Callable[[jinja2.nodes.Template], Iterable[Found]],
    origin: Origin,
    file: str,
) -> list[Found]:
    """Parse a template and return what `find` finds in it."""
    try:
        return list(find(environment.parse(text)))
    except jinja2.TemplateSyntaxError as error:
        raise _syntax(error, origin, file) from None
    except RecursionError:
        raise _error("a template is nested too deeply", "", "simplify it", origin) from None
    except ValueError as error:  # a number of thousands of digits
        raise _error(f"template: {_first_line(error)}", "", "mend the expression", origin) from None


def render(
    environment: Environment, text: str, variables: Mapping[str, Any], origin: Origin, *, file: str = ""
) -> str:
    """Return a template's text. `file` is set if it is a file of its own: errors then name its lines.

    Raises `RecipeError`.
    """
    try:
        template = environment.compiled.get(text)
        if template is None:
            # A matrix renders the same texts again and again.
            template = environment.compiled[text] = environment.from_string(text)
        result = template.render(variables)
    except jinja2.TemplateSyntaxError as error:
        raise _syntax(error, origin, file) from None
    except jinja2.UndefinedError as error:
        raise _undefined(variables, error, _place(environment, error, origin, file)) from None
    except (RecursionError, MemoryError):
        raise _error("a template takes too much memory", "", "simplify it", origin) from None
    except Exception as error:  # noqa: BLE001 (an expression can raise whatever Python can)
        place = _place(environment, error, origin, file)
        raise _error(f"template: {_first_line(error)}", "", "mend the expression", place) from None
    if not result.isascii() and _SURROGATE.search(result):
        raise _error("a template gives half of a character", "", "remove the \\uD800 to \\uDFFF", origin)
    if len(result) > _SIZE:
        raise _error(f"a template gives more than {_SIZE >> 20} MiB of text", "", "shorten it", origin)
    return result


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _syntax(error: jinja2.TemplateSyntaxError, origin: Origin, file: str) -> RecipeError:
    # jinja2 has names of its own for text that is in no file: <unknown>, <introspection>.
    name = error.filename if error.filename and not error.filename.startswith("<") else file
    place = Origin(name, error.lineno, origin.key) if name else origin
    details = "" if name or error.lineno <= 1 else f"in line {error.lineno} of the text"
    resolution = "mend the template, or write raw = true if this text is none"
    return _error(f"template: {_first_line(error)}", details, resolution, place)


def _place(environment: Environment, error: BaseException, origin: Origin, file: str) -> Origin:
    """Return the line of a template file in which an error was raised; `origin` for templates in a recipe."""
    place = Origin(file, 1, origin.key) if file else origin
    included = {name for name, _ in environment.sources.values()}
    trace = error.__traceback__
    while trace:
        frame_file = trace.tb_frame.f_code.co_filename
        if frame_file == "<template>" and file:
            place = Origin(file, trace.tb_lineno, origin.key)
        elif frame_file in included:
            place = Origin(frame_file, trace.tb_lineno, origin.key)
        trace = trace.tb_next
    return place


def _undefined(variables: Mapping[str, Any], error: Exception, origin: Origin) -> RecipeError:
    message = _first_line(error)
    name = message.removeprefix("'").partition("'")[0]
    if message.endswith("is undefined") and name not in variables:
        resolution = suggestion(name, variables, what="variables")
        return _error(f"there is no variable `{name}`", "", resolution, origin)
    return _error(f"template: {message}", "", "mend the expression", origin)


def _error(brief: str, details: str, resolution: str, origin: Origin) -> RecipeError:
    return RecipeError((Problem(brief, details, resolution, origin),))
