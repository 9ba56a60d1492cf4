"""Artifact references: what they mean, and what is said of those that mean nothing."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from salver.contract.artifact import check_artifact
from salver.errors import ContractError
from salver.registry import ArtifactRef, Digest, FileRef, HfRef, HttpsRef, PypiRef

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("file:m.gguf", FileRef(Path("/base/m.gguf"))),
        ("file:/models/m.gguf", FileRef(Path("/models/m.gguf"))),
        ("file:///models/a%20b.gguf", FileRef(Path("/models/a b.gguf"))),
        ("pypi:some-model==1.0.post1/pkg/m.gguf", PypiRef("some-model", "1.0.post1", "pkg/m.gguf")),
        ("hf:org/repo@main/m.gguf", HfRef("org/repo", "main", "m.gguf")),
        ("hf:org/repo@v1.0/q4/m.gguf", HfRef("org/repo", "v1.0", "q4/m.gguf")),
        (f"hf:org/repo@{COMMIT}/", HfRef("org/repo", COMMIT, None)),
        ("https://host/a/m.gguf?x=1", HttpsRef("https://host/a/m.gguf?x=1")),
    ],
)
def test_each_kind_is_read(text: str, ref: ArtifactRef) -> None:
    assert ArtifactRef.parse(text, base=Path("/base")) == ref
    assert check_artifact(text) == text  # a contract takes what the registry takes


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "artifact.scheme"),
        ("m.gguf", "artifact.scheme"),
        ("http://host/m.gguf", "artifact.scheme"),
        ("oci:host/m", "artifact.scheme"),
        ("pypi", "artifact.scheme"),
        ("file:", "artifact.form"),
        ("file://elsewhere/m.gguf", "artifact.form"),
        ("file:a\nb", "artifact.form"),
        ("file:" + "x" * 2000, "artifact.form"),
        ("pypi:name/m.gguf", "artifact.mutable"),
        ("pypi:name>=1/m.gguf", "artifact.mutable"),
        ("pypi:name==1.*/m.gguf", "artifact.form"),
        ("pypi:name==1", "artifact.form"),
        ("pypi:--index-url==1/m.gguf", "artifact.form"),
        ("pypi:name==1/../../etc/passwd", "artifact.form"),
        ("pypi:name==1//m.gguf", "artifact.form"),
        ("pypi:name==1/a\\m.gguf", "artifact.form"),
        ("hf:org/repo/m.gguf", "artifact.mutable"),
        ("hf:org/repo@main", "artifact.form"),
        ("hf:org/repo@../x/m.gguf", "artifact.form"),
        ("hf:org/repo@main/../m.gguf", "artifact.form"),
        ("https:", "artifact.form"),
        ("https://host", "artifact.form"),
        ("https://host/", "artifact.form"),
        ("https://host:99999/m.gguf", "artifact.form"),
        ("https://host/m.gguf#part", "artifact.form"),
        ("https://user:secret@host/m.gguf", "artifact.form"),
        ("file:model.bin", "artifact.code"),
        ("pypi:name==1/model.PT", "artifact.code"),
        ("hf:org/repo@main/pytorch_model.bin", "artifact.code"),
        ("https://host/model.ckpt?download=1", "artifact.code"),
    ],
)
def test_what_is_wrong_is_said_with_its_fix(text: str, rule: str) -> None:
    with pytest.raises(ContractError) as caught:
        ArtifactRef.parse(text)
    [fault] = caught.value.faults
    assert (fault.path, fault.rule) == ("release.artifact", rule)
    assert fault.fix
    assert "secret" not in str(caught.value) + str(fault)
    with pytest.raises(PydanticCustomError):
        check_artifact(text)


@given(st.text(max_size=40), st.sampled_from(["", "file:", "pypi:a==1/", "hf:a/b@c/", "https://"]))
def test_any_text_is_a_reference_or_a_fault(text: str, prefix: str) -> None:
    try:
        ref = ArtifactRef.parse(prefix + text)
    except ContractError:
        return
    assert ArtifactRef.parse(str(ref)) == ref


def test_a_digest_has_one_form() -> None:
    text = f"sha256:{'0a' * 32}"
    assert str(Digest.parse(text)) == text
    for wrong in ("", "0a" * 32, f"sha256:{'0A' * 32}", f"sha1:{'0a' * 20}", f"{text} "):
        with pytest.raises(ContractError, match="is not a digest"):
            Digest.parse(wrong)
