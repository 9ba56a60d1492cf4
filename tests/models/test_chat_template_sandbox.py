"""Templates that reach out, run on or swell up are stopped, always at the same point."""

import resource

import pytest

from salver.errors import MalformedModel, SalverError, UnsupportedModel
from salver.models import ChatTemplate
from salver.models.chat_template import BASE_UNITS, MAX_SOURCE
from salver.models.template_meter import MAX_STRING, Meter, OverBudget

USER = {"role": "user", "content": "hi"}
GROW = (
    "{%% set ns = namespace(x='aa', l=[1]) %%}{%% for i in range(200) %%}%s{%% endfor %%}{{ ns.x }}"
)


def render(source: str, messages: object = None) -> str:
    chat = ChatTemplate(source, bos_token="", eos_token="")
    return chat.render([USER] if messages is None else messages)  # type: ignore[arg-type]


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ messages.__class__ }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ messages | selectattr('__class__') | list }}",
    "{{ messages | sort(attribute='__init__') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ range.__init__ }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{% for i in [1] %}{{ loop._iterator }}{% endfor %}",
    "{% set ns = namespace() %}{{ ns._Namespace__attrs }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages[0].clear() }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ '%s'.format_map({}) }}",
    "{{ 'x'.encode() }}",
    "{{ dict.fromkeys([1]) }}",
]
FORBIDDEN = [
    "{{ '' | attr('__class__') }}",
    "{% include 'x' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import path %}",
    "{% extends 'x' %}",
    "{% block x %}{% endblock %}",
    "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% filter upper %}a{% endfilter %}",
    "{% set x | upper %}a{% endset %}",
    "{{ 'x' | center(10 ** 10) }}",
    "{{ 'x' | format(1) }}",
    "{{ [1] | sum }}",
    "{{ 'x' is nothing }}",
    "{{ '%999999999d' % 1 }}",
]
BOMBS = [
    "{% for i in range(10 ** 9) %}x{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(10 ** 9) if false %}{% endfor %}",
    "{% set r = range(999) %}{% for a in r %}{% for b in r %}{% for c in r %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "{% set r = range(999) %}{% for a in r %}{% for b in r %}{% for c in r if false %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "{{ ('a' * 10000).replace('a', 'b' * 100000) | length }}",
    "{{ ('a' * 10000) | replace('a', 'b' * 100000) | length }}",
    "{{ ('b' * 100000).join([''] * 10000) | length }}",
    "{{ ([''] * 10000) | join('b' * 100000) | length }}",
    "{{ range(10 ** 18) | list }}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ 10 ** 10 * 'a' }}",
    "{{ [1] * 10 ** 9 }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 2 ** 99999 }}",
    "{{ messages | tojson(indent=10 ** 9) }}",
    "{{ messages | tojson(separators=('x' * 1000, ':')) }}",
    "{{ 'x' | indent(10 ** 10) }}",
    "{{ 'x' | indent('y' * 100000) }}",
    "{{ strftime_now('%999999999Y') }}",
    "{{ strftime_now('%Y' * 100) }}",
    GROW % "{% set ns.x = ns.x + ns.x %}",
    GROW % "{% set ns.x = ns.x ~ ns.x %}",
    GROW % "{% set ns.x = ns.x * 2 %}",
    GROW % "{% set ns.x = [ns.x, ns.x] | join %}",
    GROW % "{% set ns.x = 'bbbb'.join([ns.x, ns.x]) %}",
    GROW % "{% set ns.x = ns.x | replace('a', 'aaaa') %}",
    GROW % "{% set ns.x = ns.x.replace('', 'aaaa') %}",
    GROW % "{% set ns.x = ns.x | replace('a', 'a\na') | indent(64, true) %}",
    GROW % "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}",
    GROW % "{% set ns.l = ns.l + ns.l %}",
    GROW % "{% set ns.l = ns.l * 2 %}",
    GROW % "{% set ns.l = [ns.l, ns.l] %}",
    GROW % "{% set ns.l = {'a': ns.l, 'b': ns.l} %}",
    GROW % "{% set ns.l = (ns.l, ns.l) %}",
    GROW % "{% set ns.l = [ns.l] %}",
    GROW % "{% set ns.l = dict(a=ns.l, b=ns.l) %}{{ ns.l }}",
    GROW % "{% set ns.l = namespace(a=ns.l) %}{{ ns.l }}",
    "{% set b = 'a' * 1000000 %}{{ ([b] * 1000) | map('upper') | list | length }}",
    "{% set b = 'a' * 1000000 %}{% for i in range(99999) %}{% if 'b' in b %}{% endif %}{% endfor %}",
    "{% set b = 'a' * 1000000 %}{% for i in range(99999) %}{{ b.count('b') }}{% endfor %}",
    "{% set b = 'a' * 1000000 %}{% for i in range(99999) %}{{ b == b + '' }}{% endfor %}",
    "{% set b = 'a ' * 1000000 %}{% for i in range(99) %}{{ b.split() | length }}{% endfor %}",
    "{% set b = [1] * 99999 %}{% for i in range(99999) %}{% set c = b | sort %}{% endfor %}",
    "{% set b = [1] * 99999 %}{% for i in range(99999) %}{% set c = b[1:] %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f(x) %}" + "{% if x.y %}{% endif %}" * 4000 + "{% endmacro %}"
    "{% for i in range(99999) %}{% if f(1) %}{% endif %}{% endfor %}",
    "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}{% call f() %}"
    "{% for i in range(9999999) %}{% endfor %}{% endcall %}{% endcall %}",
    "{% for i in range(9000) %}" + "y" * 1000 + "{% endfor %}",
    "{% set x %}{% for i in range(9000) %}" + "y" * 1000 + "{% endfor %}{% endset %}",
    "{{ namespace() }}",
    "{{ range }}{{ dict }}",
    "{% for i in [1] %}{{ loop }}{% endfor %}",
]
BROKEN = [
    "{{",
    "{% for %}",
    "{% endif %}",
    "{{ 'a }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "+".join(["1"] * 10000) + " }}",
    "{{ " + "[" * 500 + "]" * 500 + " }}",
    "{% if 1 %}" * 1000 + "{% endif %}" * 1000,
    "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
    "{{ " + "9" * 5000 + " }}",
    "x" * (MAX_SOURCE + 1),
]


@pytest.mark.parametrize("source", ESCAPES)
def test_nothing_outside_can_be_reached(source: str) -> None:
    with pytest.raises(SalverError) as refusal:
        render(source)
    assert "object at 0x" not in str(refusal.value)
    assert "<class" not in str(refusal.value)


@pytest.mark.parametrize("source", FORBIDDEN)
def test_parts_of_jinja_that_chats_do_not_need_are_refused_by_name(source: str) -> None:
    with pytest.raises(UnsupportedModel, match="more of Jinja than is allowed"):
        render(source)


@pytest.mark.parametrize("source", BOMBS, ids=lambda source: source[:60])
def test_work_is_bounded(source: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MalformedModel, match="cannot be trusted"):
        render(source)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 * 1024  # KiB


@pytest.mark.parametrize("source", BROKEN, ids=lambda source: source[:30])
def test_what_does_not_compile_is_refused_when_loaded(source: str) -> None:
    with pytest.raises(MalformedModel, match="cannot be trusted"):
        ChatTemplate(source, bos_token="", eos_token="")


def test_compiling_runs_nothing() -> None:
    """Jinja folds constants while it compiles; here even those wait for a meter."""
    for source in ("{{ 'a' * 10 ** 12 }}", "{{ [0] * 10 ** 12 }}", "{{ 'a' | upper }}"):
        ChatTemplate(source, bos_token="", eos_token="")


def test_the_same_work_costs_the_same() -> None:
    source = "{% for i in range(99999) %}{{ messages | length }}{% endfor %}"
    outcomes = {outcome(source.replace("99999", str(count))) for count in [90_000] * 3}
    assert len(outcomes) == 1


def outcome(source: str) -> str:
    try:
        return render(source)
    except SalverError as refusal:
        return str(refusal)


def test_a_long_conversation_earns_its_budget() -> None:
    messages = [{"role": "user", "content": "word " * 40}] * 20_000
    source = "{% for m in messages %}{{ m.role ~ ': ' ~ m.content | trim }}{% endfor %}"
    assert len(render(source, messages)) > 20_000 * 200


def test_a_meter_counts_shared_parts_each_time() -> None:
    value: list[object] = []
    for _ in range(40):
        value = [value, value]
    meter = Meter(BASE_UNITS)
    with pytest.raises(OverBudget, match="too much work"):
        meter.weigh(value)


def test_output_is_bounded() -> None:
    half = "x" * (MAX_STRING // 2 + 1)
    with pytest.raises(MalformedModel, match="writes over"):
        render("{{ messages[0].content }}{{ messages[0].content }}", [{"content": half}])
