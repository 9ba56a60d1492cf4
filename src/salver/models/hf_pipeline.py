"""The stages of a tokenizer.json around its BPE model, rebuilt from an explicit list.

The library would load any stage, with any regular expression in it. Only stages that the supported
families use are built here, with patterns from our own table; others are refused by name, since
leaving one out, or running one that takes unbounded time, would both be wrong.
Format: https://huggingface.co/docs/tokenizers/components.
"""

from collections.abc import Mapping
from typing import Final

from tokenizers import Regex, normalizers, pre_tokenizers

from salver.errors import UnsupportedModel
from salver.models.bpe import SPACE
from salver.models.fields import Fields
from salver.models.pretokenizers import GPT2_PATTERN, KNOWN_PATTERNS

_LISTS: Final = ("normalizers", "pretokenizers", "processors")  # where a Sequence keeps its stages


def stages(document: Fields, key: str) -> list[Fields]:
    """The stages under `key` in order, nested sequences laid flat; none if it is null.

    Raises:
        MalformedModel: a stage is not a mapping with a type.
    """
    stage = document.section(key)
    return _flat(stage) if key in document else []


def has_stage(document: Fields, key: str, kind: str) -> bool:
    return any(stage.text("type") == kind for stage in stages(document, key))


def build_normalizer(document: Fields) -> normalizers.Normalizer:
    """What rewrites text before it is cut."""
    return normalizers.Sequence([_rewrite(stage) for stage in stages(document, "normalizer")])


def build_pre_tokenizer(
    document: Fields, *, starts_prompt: bool
) -> pre_tokenizers.PreTokenizer | None:
    """What cuts text into words. Metaspace may put a space before the start of a prompt alone."""
    cuts = [
        cut
        for stage in stages(document, "pre_tokenizer")
        for cut in _cuts(stage, starts_prompt=starts_prompt)
    ]
    return pre_tokenizers.Sequence(cuts) if cuts else None


def adds_space(document: Fields) -> bool:
    """Whether a text gets a space put before it."""
    return has_stage(document, "normalizer", "Prepend") or any(
        _scheme(stage) != "never"
        for stage in stages(document, "pre_tokenizer")
        if stage.text("type") == "Metaspace"
    )


def space_at_start_only(document: Fields) -> bool:
    """Whether that space goes before the start of the prompt and nowhere else."""
    return any(
        _scheme(stage) == "first"
        for stage in stages(document, "pre_tokenizer")
        if stage.text("type") == "Metaspace"
    )


def affixes(document: Fields, ids: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the post-processor puts before and after a single text.

    `ids` maps added tokens to ids.
    """
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    for stage in stages(document, "post_processor"):
        if stage.text("type") == "TemplateProcessing":
            before, after = _template(stage, ids)
            prefix, suffix = before + prefix, suffix + after
        elif stage.text("type") != "ByteLevel":
            raise _refuse(stage, "type")
    return prefix, suffix


def _flat(stage: Fields) -> list[Fields]:
    if stage.text("type") != "Sequence":
        return [stage]
    nested = next((stage.get(key) for key in _LISTS if key in stage), None)
    if not isinstance(nested, list) or not all(isinstance(inner, Mapping) for inner in nested):
        raise stage.malformed("type", "a Sequence of mappings")
    return [flat for inner in nested for flat in _flat(Fields(inner, stage.where))]


def _rewrite(stage: Fields) -> normalizers.Normalizer:
    match stage.text("type"):
        case "NFC":
            return normalizers.NFC()
        case "Prepend":
            stage.require("prepend", SPACE)
            return normalizers.Prepend(SPACE)
        case "Replace":
            stage.require("pattern", {"String": " "})
            stage.require("content", SPACE)
            return normalizers.Replace(" ", SPACE)
    raise _refuse(stage, "type")


def _cuts(stage: Fields, *, starts_prompt: bool) -> list[pre_tokenizers.PreTokenizer]:
    match stage.text("type"):
        case "ByteLevel":
            stage.require("add_prefix_space", False)
            words = [_split(GPT2_PATTERN)] if stage.flag("use_regex", True) else []
            return [*words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        case "Split":
            stage.require("behavior", "Isolated")
            stage.require("invert", False)
            return [_split(_known_pattern(stage))]
        case "Digits":
            return [pre_tokenizers.Digits(stage.flag("individual_digits", False))]
        case "Metaspace":
            stage.require("replacement", SPACE)
            scheme = _scheme(stage)
            now = "never" if scheme == "first" and not starts_prompt else scheme
            return [pre_tokenizers.Metaspace(SPACE, now, stage.flag("split", True))]
    raise _refuse(stage, "type")


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _known_pattern(stage: Fields) -> str:
    pattern = stage.section("pattern").text("Regex")
    if pattern not in KNOWN_PATTERNS:
        raise _refuse(stage, "pattern")
    return pattern


def _scheme(stage: Fields) -> str:
    """When Metaspace puts a space before the text: always, first or never."""
    stage.require("prepend_scheme", "always", "first", "never")
    older = "always" if stage.flag("add_prefix_space", True) else "never"
    return stage.text("prepend_scheme", older)


def _template(stage: Fields, ids: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    single = stage.get("single")
    if not isinstance(single, list) or not all(isinstance(item, Mapping) for item in single):
        raise stage.malformed("single", "a list of mappings")
    texts = [index for index, item in enumerate(single) if "Sequence" in item]
    if len(texts) != 1:
        raise stage.malformed("single", "a template with one place for the text")
    tokens = [_template_token(item, ids, stage.where) for item in single if "Sequence" not in item]
    return tuple(tokens[: texts[0]]), tuple(tokens[texts[0] :])


def _template_token(item: Mapping[str, object], ids: Mapping[str, int], where: str) -> int:
    token = Fields(item, where).section("SpecialToken")
    name = token.text("id")
    if name not in ids:
        raise token.malformed("id", "an added token")
    return ids[name]


def _refuse(stage: Fields, key: str) -> UnsupportedModel:
    return stage.unsupported(key, "which is not a stage known here")
