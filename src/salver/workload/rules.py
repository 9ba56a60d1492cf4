"""The rules a traffic mix can break beside those of every file. `salver explain RULE` shows them."""

from salver.contract.rules import Rule

_ALL = (
    Rule(
        "mix.one_of",
        "A choice is made once: one kind of arrivals, of lengths, of prompts.",
        "With none or several it is unclear which one is meant.",
    ),
    Rule(
        "mix.input",
        "Prompts of token ids have an `input` length, prompts of a file have none.",
        "A file's prompts are as long as they are.",
    ),
    Rule(
        "mix.range",
        "A range's first value is at most its last.",
        "There is nothing between them otherwise.",
    ),
    Rule(
        "mix.trace_named",
        "Instants or lengths `from the trace` need the flow's `trace`.",
        "A number without a file says nothing.",
    ),
    Rule(
        "mix.trace_reaches",
        "A trace is at least as long as the mix lasts, at the speed it is played.",
        "A load that ends early is not the load that was asked for.",
    ),
    Rule(
        "mix.token_prompts",
        "Shared prefixes need prompts of token ids.",
        "A text's prefix is written in its file, or as `system`.",
    ),
    Rule(
        "mix.closed_loop_alone",
        "A closed loop has no sessions and no other flow beside it.",
        "Its users set the pace themselves; beside an open loop neither could be read.",
    ),
    Rule(
        "mix.window",
        "Warm-up and cool-down leave something to judge.",
        "A report about no request says nothing.",
    ),
    Rule(
        "mix.objective",
        "The SLO states at least one bound.",
        "Without one every answer is good, and goodput is throughput.",
    ),
    Rule(
        "mix.not_empty",
        "A mix has at least one flow, and a flow at least one tenant.",
        "Nobody would send anything.",
    ),
    Rule("mix.flow_names", "Flows have different names.", "Their random streams go by name."),
    Rule(
        "mix.tenant_names",
        "A flow's tenants have different names.",
        "Results are told apart by it.",
    ),
    Rule(
        "mix.file",
        "A file that a mix names is beside it or in the data directory, and can be read.",
        "`salver bench --data DIRECTORY` says where else to look.",
    ),
    Rule(
        "trace.form",
        "Every line of a trace has the fields of its format, with sensible values.",
        "A line left out would be a load made lighter.",
    ),
    Rule("trace.order", "A trace is in order of time.", "What is out of order was put together."),
    Rule(
        "prompts.form",
        "Every line of a prompt file is an object with the named field: a text or a list of texts.",
        "A line left out would be another set of prompts.",
    ),
)

MIX_RULES = {rule.name: rule for rule in _ALL}
"""Rules by name."""
