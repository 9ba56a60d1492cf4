"""A chat template: the model's own rule for writing a conversation as one text.

The file says how, in Jinja as `transformers` runs it; nothing is guessed for a file that has none.
It is also a program from a stranger: see `template_meter` and `template_sandbox` for what it may
use and spend.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import CodeType
from typing import Final

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError

from salver.errors import InvalidValue, MalformedModel, UnsupportedField, UnsupportedModel
from salver.models.chat_messages import plain_data, plain_list, template_messages
from salver.models.template_meter import Meter, NotAllowed, NotData, OverBudget, instrument
from salver.models.template_sandbox import RaisedByTemplate, Sandbox

MAX_SOURCE: Final = 1 << 17  # characters; the longest known templates have some 20,000
BASE_UNITS: Final = 2_000_000  # a fraction of a second
UNLIMITED: Final = 1 << 62
UNITS_PER_INPUT_UNIT: Final = 32  # a long conversation earns more

# What a program of that language can run into while it works on unforeseen messages.
_FAILURES: Final = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
_GIVEN: Final = frozenset({"messages", "tools", "documents", "add_generation_prompt"})


class ChatTemplate:
    """A compiled template. Immutable; renderings share nothing, so threads may share it.

    Args:
        source: Jinja text.
        bos_token: what the template sees under that name.
        eos_token: likewise.
        clock: the local time, for templates that tell the model the date.

    Raises:
        MalformedModel: the source is too long or does not compile.
        UnsupportedModel: it uses a part of Jinja that is not allowed here.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str,
        eos_token: str,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._clock = clock
        self._code, self._names = _compile(source)

    @property
    def supports_tools(self) -> bool:
        """Whether the template says anything about tools."""
        return "tools" in self._names

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """Write a conversation as one text.

        Args:
            messages: OpenAI messages; content may be text parts.
            tools: OpenAI tools, or None.
            add_generation_prompt: end with what makes the model answer.
            variables: further names that this template knows, such as `enable_thinking`.

        Raises:
            UnsupportedField: content that is not text, or tools that the template would ignore.
            InvalidValue: the template does not take these messages.
            MalformedModel: the template tried to leave its sandbox or to use too much.
            UnsupportedModel: it uses a part of Jinja that is not allowed here.
        """
        given = {
            "messages": template_messages(messages),
            "tools": self._tools(tools),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        return self._render({**self._variables(variables or {}), **self._tokens, **given})

    def __repr__(self) -> str:
        tools = "with" if self.supports_tools else "without"
        return f"<ChatTemplate of {len(self.source)} characters, {tools} tools>"

    def _tools(self, tools: Sequence[Mapping[str, object]] | None) -> object:
        if not tools:
            return None
        if not self.supports_tools:
            raise UnsupportedField(
                "this model's chat template takes no tools",
                param="tools",
                rule="chat_template.tools",
                fix="leave out `tools`, or serve a model that was trained to call them",
            )
        return plain_list(tools, "tools")

    def _variables(self, variables: Mapping[str, object]) -> Mapping[str, object]:
        for name in variables:
            if name in _GIVEN or name in self._tokens or name not in self._names:
                raise UnsupportedField(
                    f"the chat template takes no variable {name!r}",
                    param=name,
                    rule="chat_template.variables",
                    fix="leave it out",
                )
        return {name: plain_data(value, name) for name, value in variables.items()}

    def _render(self, names: Mapping[str, object]) -> str:
        meter = Meter(BASE_UNITS + UNITS_PER_INPUT_UNIT * _weight(names))
        sandbox = Sandbox(meter, self._clock)
        template = Template.from_code(sandbox, self._code, sandbox.globals)
        try:
            return "".join(template.root_render_func(template.new_context(dict(names))))
        except (OverBudget, SecurityError, NotData) as error:
            raise _untrusted(str(error)) from error
        except NotAllowed as error:
            raise _not_allowed(error) from error
        except RaisedByTemplate as error:
            raise _unfit(str(error), "the chat template refuses these messages") from None
        except RecursionError as error:
            raise _untrusted("it is nested too deeply") from error
        except _FAILURES as error:
            raise _unfit(str(error), "the chat template cannot write these messages") from error


def _compile(source: str) -> tuple[CodeType, frozenset[str]]:
    """The metered program, and every name that the source reads."""
    if len(source) > MAX_SOURCE:
        problem = f"it has {len(source)} characters; {MAX_SOURCE} are allowed"
        raise _untrusted(problem, limit=MAX_SOURCE)
    sandbox = Sandbox(Meter(0), datetime.now)
    try:
        tree = sandbox.parse(source)
        names = frozenset(node.name for node in tree.find_all(nodes.Name) if node.ctx == "load")
        _check_names(tree, sandbox)
        return sandbox.compile(instrument(tree)), names
    except NotAllowed as error:
        raise _not_allowed(error) from None
    except RecursionError:
        raise _untrusted("it is nested too deeply") from None
    except (TemplateError, SyntaxError, ValueError, MemoryError) as error:
        raise _untrusted(f"it does not compile: {error}") from error


def _check_names(tree: nodes.Template, sandbox: Sandbox) -> None:
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        kind = "filter" if isinstance(node, nodes.Filter) else "test"
        if node.name not in (sandbox.filters if kind == "filter" else sandbox.tests):
            raise NotAllowed(f"line {node.lineno} uses the {kind} {node.name!r}")


def _weight(names: Mapping[str, object]) -> int:
    """What it costs to read everything that a template is given."""
    meter = Meter(UNLIMITED)
    try:
        meter.weigh(names)
    except OverBudget as error:
        raise _unfit(str(error), "the messages are too large for a chat template") from None
    return UNLIMITED - meter.units


def _untrusted(problem: str, limit: object = None) -> MalformedModel:
    return MalformedModel(
        f"the model's chat template cannot be trusted: {problem}",
        rule="chat_template",
        limit=limit,
        fix="use another model file, or send completions instead of chat",
    )


def _not_allowed(error: NotAllowed) -> UnsupportedModel:
    return UnsupportedModel(
        f"the model's chat template needs more of Jinja than is allowed here: {error}",
        rule="chat_template",
        fix="use another model file, or send completions instead of chat",
    )


def _unfit(reason: str, problem: str) -> InvalidValue:
    return InvalidValue(
        f"{problem}: {reason}",
        param="messages",
        rule="chat_template",
        fix="send the roles and fields that this model was trained on",
    )
