"""Every rule a contract can break, with what it asks and why. `salver explain RULE` shows them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """`asks` is one sentence; `why` gives the reason and, where it helps, the way out."""

    name: str
    asks: str
    why: str


_ALL = (
    Rule(
        "file.readable",
        "The contract file exists and can be read.",
        "Everything else rests on it.",
    ),
    Rule(
        "yaml.size",
        "A contract is at most 256 KiB.",
        "A larger file is not a contract but an accident, and reading it would take long.",
    ),
    Rule("yaml.encoding", "A contract is UTF-8.", "Another encoding would be read wrongly."),
    Rule(
        "yaml.syntax",
        "A contract is YAML 1.2.",
        "The usual causes are a tab for indentation, a missing space after a colon, and an unquoted "
        "string that begins with a special character.",
    ),
    Rule(
        "yaml.depth",
        "A contract nests at most 16 levels.",
        "No section needs more; a deeper file would only cost time.",
    ),
    Rule(
        "yaml.document",
        "A file holds one contract: a mapping of sections.",
        "With several, it would be unclear which one is served.",
    ),
    Rule("yaml.key", "Keys are plain strings.", "Every key of a contract is a word."),
    Rule(
        "yaml.duplicate_key",
        "A key stands once in its section.",
        "Readers of YAML disagree on which of two wins, and so would people.",
    ),
    Rule(
        "yaml.alias",
        "Anchors, aliases and tags are not used.",
        "What is served should be readable where it stands, and aliases can make a small file huge.",
    ),
    Rule(
        "yaml.empty",
        "Every key has a value.",
        "An empty value is mostly a forgotten one. To leave a setting at its default, leave out its "
        "key.",
    ),
    Rule(
        "secrets.in_file",
        "A contract holds no secrets.",
        "It is read, reviewed and committed. Keys of tenants live in the state store, hashed; "
        "credentials of sources live in the settings of pip or the Hugging Face client.",
    ),
    Rule(
        "schema.required",
        "A required key is there.",
        "Salver serves nothing until it is said what, from which bytes, within which bounds, and "
        "who answers for it.",
    ),
    Rule(
        "schema.unknown_key",
        "Every key is one that Salver knows.",
        "A key that does nothing would be a promise nobody keeps (law 9).",
    ),
    Rule(
        "schema.type",
        "A value is of the kind its key takes.",
        "Nothing is converted silently: `4096` is a number and `'4096'` is not.",
    ),
    Rule("schema.choice", "A value is one of those its key takes.", "Others mean nothing here."),
    Rule("schema.range", "A value is within the bounds of its key.", "Beyond them it cannot work."),
    Rule(
        "schema.form",
        "A string has the form its key takes.",
        "Names, for one, appear in URLs, headers and metric labels.",
    ),
    Rule(
        "quantity.duration",
        "A duration carries its unit: us, ms, s, m or h.",
        "A bare 500 could be milliseconds or seconds.",
    ),
    Rule(
        "quantity.size",
        "A size carries its unit: B, KiB, MiB, GiB, TiB (powers of 1024) or KB, MB, GB, TB (of 1000).",
        "A bare 2 could be bytes or gibibytes, and G alone could be either kind of giga.",
    ),
    Rule(
        "quantity.fraction",
        "A share is a percentage from 0% to 100%.",
        "A bare 1 could be one percent or all of it.",
    ),
    Rule(
        "artifact.scheme",
        "An artifact begins with file:, pypi:, hf: or https:.",
        "These are the sources that `salver pull` knows.",
    ),
    Rule(
        "artifact.form",
        "An artifact is written in the form of its source.",
        "file:PATH, pypi:NAME==VERSION/PATH, hf:ORG/REPO@REVISION/FILE or https://HOST/PATH.",
    ),
    Rule(
        "artifact.mutable",
        "An artifact names its version or revision.",
        "A name alone means other bytes tomorrow. The digest would catch that, but a person who "
        "reads the contract should see what it serves too.",
    ),
    Rule(
        "artifact.code",
        "An artifact is in a format that cannot run code.",
        "Loading a pickle executes what its author wrote. GGUF and safetensors hold data only.",
    ),
    Rule(
        "digest.form",
        "A digest is `sha256:` and 64 lower-case hex digits.",
        "It says which bytes are served; `salver pull ARTIFACT` prints it.",
    ),
    Rule(
        "runtime.combination",
        "Quantization and KV cache type are ones that the engine has.",
        "numpy computes in f32 with an f32 cache; native has bf16, w8a16, w8a8 and q4 with a bf16 or "
        "int8 cache, and bf16 with an f32 cache, where nothing but weights is rounded. With upstream, "
        "any pair: it declares what the other servers run.",
    ),
    Rule(
        "runtime.engine_available",
        "This build has the engine.",
        "An engine is never replaced by another behind the reader's back, since the tokens could "
        "differ. This build has no native core: use `engine: numpy`.",
    ),
    Rule(
        "runtime.q4_groups",
        "An artifact served in q4 holds 4-bit groups: a GGUF file stored as Q4_0, Q4_1 or Q4_K.",
        "q4 computes with the file's own groups as they are. Making others while loading would be "
        "another model, and a worse one: use w8a16.",
    ),
    Rule(
        "envelope.output_within_context",
        "max_output_tokens is below max_context_tokens.",
        "Prompt and output share the context, and a prompt has at least one token.",
    ),
    Rule(
        "admission.queue_holds_a_prompt",
        "max_queued_tokens is at least max_context_tokens.",
        "Otherwise a prompt that the envelope allows could never be queued, and its caller would be "
        "told to retry forever.",
    ),
    Rule(
        "slo.consistent",
        "ttft_p95 is at most e2e_p99.",
        "The first token comes no later than the whole answer.",
    ),
    Rule(
        "names.unique",
        "Tenants have different names, and so have backends.",
        "A name is how quotas, metrics and fallbacks tell them apart.",
    ),
    Rule(
        "rollout.steps_rise",
        "Rollout steps rise strictly from above 0%.",
        "Each step gives the new release more traffic than the one before.",
    ),
    Rule(
        "rollout.ends_at_all",
        "The last rollout step is 100%.",
        "A rollout that stops earlier would leave two releases forever.",
    ),
    Rule(
        "served_by.backend_exists",
        "A replica is declared under backends.",
        "The name alone does not say where it is.",
    ),
    Rule(
        "served_by.engine",
        "`engine: upstream` and served_by go together.",
        "A release is computed by this machine's worker or by other servers; both would leave it "
        "unclear whose answer a caller gets.",
    ),
    Rule(
        "fallback.one_thing",
        "A fallback is a backend or a static text.",
        "With both or neither it is unclear what happens.",
    ),
    Rule(
        "fallback.backend_exists",
        "A fallback backend is declared under backends.",
        "The name alone does not say where it is.",
    ),
    Rule(
        "fallback.reached",
        "A static text comes last.",
        "It always answers, so that nothing after it would ever be tried.",
    ),
    Rule(
        "envelope.memory",
        "The envelope holds process, weights, the largest step and the KV of one full context.",
        "With less, the longest request that the envelope allows could never run. `salver check` "
        "shows the sum.",
    ),
    Rule(
        "envelope.max_context_tokens",
        "max_context_tokens is within the positions that the model was made for.",
        "Beyond them its answers are noise.",
    ),
    Rule(
        "machine.memory",
        "The machine has the envelope's memory available.",
        "A process that gets less than it was promised is killed in the middle of its work.",
    ),
    Rule(
        "machine.threads",
        "The machine has as many cores as the envelope has threads.",
        "More threads than cores wait for one another and make every step slower.",
    ),
    Rule(
        "machine.isa",
        "The machine and this build have the path of the native core that SALVER_ISA forces.",
        "Another path in its place would be measured, or trusted, as the one that was asked for.",
    ),
)

RULES = {rule.name: rule for rule in _ALL}
"""Rules by name, in the order in which they are checked."""
