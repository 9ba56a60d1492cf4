"""The part of Jinja that a chat template may use.

Everything is denied but what is listed: filters, tests, globals, and methods of strings and
mappings. What can grow its input is written anew here with the size worked out first; the rest is
Jinja's own. One environment serves one rendering and holds its meter, so renderings share nothing.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial, wraps
from typing import Any, Final, NoReturn

from jinja2 import Environment, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import FILTERS
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from salver.models.template_meter import (
    CONCAT,
    EACH,
    MAX_DEPTH,
    SPEND,
    WEIGH,
    Meter,
    OverBudget,
)
from salver.models.template_operations import (
    check_operation,
    indent_filter,
    join,
    join_filter,
    method,
    replace_filter,
    to_json,
)

MAX_TIME_FORMAT: Final = 64

# What a filter or test does with its input decides what it pays for: nothing beyond the call, the
# items one level down, or everything inside.
_FREE_FILTERS: Final = frozenset({"count", "d", "default", "first", "last", "length"})
_SHALLOW_FILTERS: Final = frozenset(
    {"items", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr"}
)
_DEEP_FILTERS: Final = frozenset(
    {"abs", "capitalize", "dictsort", "float", "int", "lower", "max", "min", "sort", "string"}
    | {"title", "trim", "unique", "upper"}
)
_FREE_TESTS: Final = frozenset(
    {"boolean", "callable", "defined", "even", "false", "float", "integer", "iterable", "mapping"}
    | {"none", "number", "odd", "sequence", "string", "true", "undefined"}
)
_DEEP_TESTS: Final = frozenset(
    {"!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in", "le"}
    | {"lessthan", "lower", "lt", "ne", "upper"}
)
_LOOP_ATTRIBUTES: Final = frozenset(
    {"cycle", "depth", "depth0", "first", "index", "index0", "last", "length", "nextitem"}
    | {"previtem", "revindex", "revindex0"}
)
_METHODS: Final[Mapping[type, frozenset[str]]] = {
    str: frozenset(
        {"capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha"}
        | {"isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower"}
        | {"lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex"}
        | {"rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip"}
        | {"swapcase", "title", "upper"}
    ),
    dict: frozenset({"get", "items", "keys", "values"}),
    LoopContext: _LOOP_ATTRIBUTES,
}

_PLUMBING: Final = (Context, Environment, EvalContext)  # what Jinja itself hands to a filter
_TIME_FORMAT: Final = re.compile(r"(?:[^%]|%-?[A-Za-z%])*")  # glibc would take a width after the %


class RaisedByTemplate(Exception):
    """The template called `raise_exception`: it will not render these messages."""


@pass_context
def _emit(context: Context, value: object) -> str:
    return _meter(context).emit(value)


class _GenerationBlock(Extension):
    """`{% generation %}` marks what an assistant wrote, for training; here it is just its body."""

    tags = {"generation"}  # noqa: RUF012 - the type that Jinja declares

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as chat templates expect it, for one rendering.

    Args:
        meter: pays for everything.
        now: the time that `strftime_now` tells.
    """

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, meter: Meter, now: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationBlock],
            finalize=_emit,
            optimized=False,  # the optimizer would run filters and sums while compiling, unmetered
        )
        self.meter = meter
        self._calls = 0
        self.filters = _filters(meter)
        self.tests = _tests(meter)
        self.globals = {
            "dict": dict,
            "namespace": Namespace,
            "raise_exception": _raise,
            "range": range,
            "strftime_now": lambda template: now().strftime(_time_format(template)),
        }

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        """Allow what `_METHODS` lists; a namespace's names are the template's own."""
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        return attr in _METHODS.get(type(obj), frozenset())

    def unsafe_undefined(self, obj: object, attribute: str) -> NoReturn:
        """Stop at once, where Jinja would only stop when the value is used."""
        raise SecurityError(f"it reaches for {attribute!r} of a {type(obj).__name__}")

    def wrap_str_format(self, value: object) -> None:
        """Let `str.format` be refused like any method that is not listed: its widths are unbounded."""
        return

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Do arithmetic once its result is known to be small enough."""
        check_operation(self.meter, operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a macro, a global or a listed method, and pay for what it reads and returns."""
        __self.meter.spend(1)
        if __self._calls >= MAX_DEPTH:
            raise OverBudget(f"it nests calls over {MAX_DEPTH} deep")
        __self._calls += 1
        try:
            function = method(__self.meter, __obj, args)
            result = super().call(__context, function, *args, **kwargs)
        finally:
            __self._calls -= 1
        if not isinstance(result, Namespace):
            __self.meter.glance(result)
        return result


def _meter(context: Context) -> Meter:
    sandbox = context.environment
    if not isinstance(sandbox, Sandbox):
        raise TypeError("a metered template runs in a Sandbox")
    return sandbox.meter


def _filters(meter: Meter) -> dict[str, Any]:
    ready = {
        **_FREE_FILTER_FUNCTIONS,
        "indent": partial(indent_filter, meter),
        "join": partial(join_filter, meter),
        "replace": partial(replace_filter, meter),
        "safe": _unchanged,
        "tojson": partial(to_json, meter),
        CONCAT: lambda values: join(meter, "", [str(meter.weigh(value)) for value in values]),
        EACH: meter.each,
        SPEND: meter.spend,
        WEIGH: meter.weigh,
    }
    return _Paying(ready, meter, _PAYING_FILTERS)


def _tests(meter: Meter) -> dict[str, Any]:
    return _Paying(_FREE_TEST_FUNCTIONS, meter, _PAYING_TESTS)


class _Paying(dict[str, Any]):
    """Functions by name. Those that pay are made when they are looked up: a template uses few."""

    def __init__(
        self, ready: Mapping[str, Any], meter: Meter, paying: Mapping[str, tuple[Any, Any]]
    ) -> None:
        super().__init__(ready)
        self._meter = meter
        self._paying = paying

    def __missing__(self, name: str) -> Any:
        make_pay, function = self._paying[name]
        made = self[name] = make_pay(self._meter, function)
        return made

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._paying


def _deep(meter: Meter, function: Any) -> Callable[..., Any]:
    """Pay for all that goes in and comes out. `wraps` keeps Jinja's mark for a first argument."""

    @wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if not isinstance(value, _PLUMBING):
                meter.weigh(value)
        return meter.weigh(_at_once(function(*args, **kwargs)))

    return metered


def _shallow(meter: Meter, function: Any) -> Callable[..., Any]:
    """Pay for going over the items, in and out."""

    @wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        for value in args:
            if not isinstance(value, _PLUMBING):
                meter.glance(value)
        result = _at_once(function(*args, **kwargs))
        meter.glance(result)
        return result

    return metered


_FREE_FILTER_FUNCTIONS: Final = {name: FILTERS[name] for name in _FREE_FILTERS}
_FREE_TEST_FUNCTIONS: Final = {name: TESTS[name] for name in _FREE_TESTS}
_PAYING_FILTERS: Final = {
    **{name: (_shallow, FILTERS[name]) for name in _SHALLOW_FILTERS},
    **{name: (_deep, FILTERS[name]) for name in _DEEP_FILTERS},
}
_PAYING_TESTS: Final = {name: (_deep, TESTS[name]) for name in _DEEP_TESTS}


def _at_once(result: object) -> object:
    """A lazy result would do its work later, when nobody pays."""
    return list(result) if isinstance(result, Iterator) else result


def _unchanged(value: object) -> object:
    return value


def _raise(message: object) -> NoReturn:
    raise RaisedByTemplate(message)


def _time_format(template: str) -> str:
    if len(template) > MAX_TIME_FORMAT or not _TIME_FORMAT.fullmatch(template):
        raise OverBudget(f"it formats the time by {template[:MAX_TIME_FORMAT]!r}")
    return template
