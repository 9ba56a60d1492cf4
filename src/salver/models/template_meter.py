"""What a chat template may spend, and the instruments that make it pay.

A template is somebody else's program, run for every request. The sandbox keeps it from reaching
anything; nothing in Jinja keeps it from running for an hour or filling the memory. Watching the
clock would not do: one multiplication can take all the memory there is, and a limit in seconds
refuses on a busy machine what it allowed on an idle one. So work is counted. `instrument` rewrites
the syntax tree so that every loop pass and macro call pays for the nodes it may execute, and every
operation whose cost depends on sizes pays for what it reads and what it makes, before it makes it.
The same template and messages always cost the same.

One unit is about one syntax-tree node: some 100 ns.
"""

from collections.abc import Iterable, Iterator, Sized
from typing import Final

from jinja2 import Undefined, nodes
from jinja2.visitor import NodeTransformer

UNITS_PER_VALUE: Final = 4  # looking at a value takes about as long as four nodes
CHARACTERS_PER_UNIT: Final = 8
MAX_STRING: Final = 1 << 23  # characters of any one string, and of the whole output
MAX_INTEGER_BITS: Final = 1 << 14  # above the 4300 digits that Python turns into text
MAX_DEPTH: Final = 64  # of containers inside containers, and of macro calls

# Names that no template can write, for the instruments that it must not call itself.
EACH: Final = "salver each"
SPEND: Final = "salver spend"
WEIGH: Final = "salver weigh"
CONCAT: Final = "salver concat"

_SCALARS: Final = frozenset({bool, float, type(None)})
_EMPTY: Final[dict[str, object]] = {}
_VIEWS: Final = (type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items()))
_SEQUENCES: Final = (list, tuple, range, *_VIEWS)

_STATEMENTS: Final = (
    nodes.Template, nodes.Output, nodes.For, nodes.If, nodes.Macro, nodes.CallBlock, nodes.Assign,
    nodes.AssignBlock, nodes.With, nodes.Break, nodes.Continue,
)  # fmt: skip
_EXPRESSIONS: Final = (
    nodes.Name, nodes.NSRef, nodes.Const, nodes.TemplateData, nodes.Tuple, nodes.List, nodes.Dict,
    nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getitem,
    nodes.Getattr, nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand, nodes.BinExpr,
    nodes.UnaryExpr,
)  # fmt: skip


class OverBudget(Exception):
    """The template asked for more work, memory or nesting than it may have."""


class NotData(Exception):
    """The template used a macro, a loop or a namespace where plain data belong."""


class NotAllowed(Exception):
    """The template uses a part of Jinja that chat templates have no need for."""


class Meter:
    """The budget of one rendering, in units."""

    def __init__(self, units: int) -> None:
        self.units = units
        self.output = MAX_STRING

    def spend(self, units: int) -> None:
        """Pay in advance.

        Raises:
            OverBudget: there is not enough left.
        """
        self.units -= units
        if self.units < 0:
            raise OverBudget("it takes too much work")

    def characters(self, count: int) -> None:
        """Pay for reading or making a string of `count` characters."""
        if count > MAX_STRING:
            raise OverBudget(f"it makes a string of {count} characters; {MAX_STRING} are allowed")
        self.spend(UNITS_PER_VALUE + count // CHARACTERS_PER_UNIT)

    def integer(self, bits: int) -> None:
        """Pay for an integer of so many bits."""
        if bits > MAX_INTEGER_BITS:
            raise OverBudget(f"it makes an integer of {bits} bits; {MAX_INTEGER_BITS} are allowed")
        self.spend(UNITS_PER_VALUE)

    def weigh(self, value: object, depth: int = 0) -> object:
        """Pay for reading all of a value, and return it; a shared part costs each time it is met.

        Raises:
            OverBudget: too large or too deep.
            NotData: something in it is not plain data.
        """
        kind = type(value)
        if kind in _SCALARS:
            self.spend(UNITS_PER_VALUE)
        elif isinstance(value, str):
            self.characters(len(value))
        elif isinstance(value, dict):
            self._weigh_all((part for item in value.items() for part in item), depth)
        elif isinstance(value, _SEQUENCES):
            self._weigh_all(value, depth)
        elif isinstance(value, int):
            self.integer(value.bit_length())
        elif not isinstance(value, Undefined):
            raise NotData(f"a {kind.__name__} is used where plain data belong")
        return value

    def glance(self, value: object) -> None:
        """Pay for going over a value's own items, without looking into them."""
        if isinstance(value, str):
            self.characters(len(value))
        elif isinstance(value, Sized) and not isinstance(value, Undefined):
            self.spend(len(value))

    def each(self, values: Iterable[object], cost: int) -> Iterator[object]:
        """Hand out the values of a loop, each for `cost` units."""
        for value in values:
            self.spend(cost)
            yield value

    def emit(self, value: object) -> str:
        """Turn a value into output."""
        text = str(self.weigh(value))
        self.output -= len(text)
        if self.output < 0:
            raise OverBudget(f"it writes over {MAX_STRING} characters")
        return text

    def _weigh_all(self, values: Iterable[object], depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise OverBudget(f"it nests values over {MAX_DEPTH} deep")
        self.spend(UNITS_PER_VALUE)
        for value in values:
            self.weigh(value, depth + 1)


def instrument(template: nodes.Template) -> nodes.Template:
    """Put the meter into a parsed template, in place.

    Raises:
        NotAllowed: the template uses a statement or expression that is not on the list.
    """
    _check(template)
    _Instrument().visit(template)
    return template


def _check(template: nodes.Template) -> None:
    for node in template.find_all(nodes.Node):
        if not isinstance(node, (*_STATEMENTS, *_EXPRESSIONS)):
            raise NotAllowed(f"line {node.lineno} uses {type(node).__name__}")
        if isinstance(node, nodes.For) and node.recursive:
            raise NotAllowed(f"line {node.lineno} uses a recursive loop")
        if isinstance(node, nodes.AssignBlock) and node.filter is not None:
            raise NotAllowed(f"line {node.lineno} filters a set block")


def _cost(*parts: nodes.Node | Iterable[nodes.Node] | None) -> int:
    """Upper bound of the nodes executed by one pass over these, nested loops paying for themselves."""
    roots = [
        node
        for part in parts
        if part is not None
        for node in ([part] if isinstance(part, nodes.Node) else part)
    ]
    return 1 + sum(1 + sum(1 for _ in root.find_all(nodes.Node)) for root in roots)


def _call(name: str, node: nodes.Node, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _weighed(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _call(WEIGH, node)


class _Instrument(NodeTransformer):
    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        """Make fixed text an expression too, so that all output passes through `emit`."""
        node.nodes = [
            nodes.Const(child.data, lineno=child.lineno)
            if isinstance(child, nodes.TemplateData)
            else child
            for child in node.nodes
        ]
        return self.generic_visit(node)

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        cost = _cost(node.body, node.test, node.target)
        self.generic_visit(node)
        node.iter = _call(EACH, node.iter, nodes.Const(cost))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return self._pay_on_entry(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        return self._pay_on_entry(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call(CONCAT, nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        operands = [operand.expr for operand in node.ops]
        searches = any(operand.op in ("in", "notin") for operand in node.ops)
        if searches or not any(isinstance(side, nodes.Const) for side in (node.expr, *operands)):
            node.expr = _weighed(node.expr)
            for operand in node.ops:
                operand.expr = _weighed(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _call(WEIGH, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._weigh_literal(node, node.items) if node.ctx == "load" else node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._weigh_literal(node, node.items)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._weigh_literal(node, [pair.value for pair in node.items])

    def _pay_on_entry(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Node:
        cost = nodes.Const(_cost(node.body), lineno=node.lineno)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call(SPEND, cost), lineno=node.lineno))
        return node

    def _weigh_literal(self, node: nodes.Expr, items: Iterable[nodes.Expr]) -> nodes.Expr:
        constant = all(isinstance(item, nodes.Const) for item in items)
        return node if constant else _call(WEIGH, node)
