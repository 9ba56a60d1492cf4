"""Files of a Hugging Face repository.

huggingface_hub says what a revision means, which files it has, where they are and with which
credentials they may be read. The bytes come through `sources.http`: the library's own download (as
of 2.4) writes to a name unique to its process and removes it on failure, so an interrupted one
starts over.
"""

from dataclasses import dataclass, replace

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # its HTTP library's own
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from salver.errors import FetchError
from salver.registry.digest import Digest
from salver.registry.reference import HfRef
from salver.registry.sources.http import RemoteFile

_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository. `digest` is known for files that the hub stores by it (LFS)."""

    remote: RemoteFile
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one commit; `ref` is the reference with the commit as its revision."""

    ref: HfRef
    files: tuple[HubFile, ...]

    def file(self, name: str) -> HubFile:
        """The file of this name.

        Raises:
            FetchError: the repository has none.
        """
        for file in self.files:
            if file.remote.name == name:
                return file
        raise FetchError(
            f"{self.ref.repo} has no file {name} at commit {self.ref.revision}",
            rule="registry.hub_file",
            value=name,
            fix=f"name one of its {len(self.files)} files",
        )


def list_repository(ref: HfRef, endpoint: str | None) -> Listing:
    """Ask the hub (`endpoint`, or the one the user has set) what the reference means now.

    Raises:
        FetchError: no such repository or revision, no access, or no hub.
    """
    try:
        api = HfApi(endpoint=endpoint, library_name="salver")
        info = api.model_info(
            ref.repo, revision=ref.revision, files_metadata=True, timeout=_TIMEOUT_SECONDS
        )
        headers = build_hf_headers(library_name="salver")
    except (HTTPError, OSError, ValueError) as error:
        raise _unanswered(ref, error) from error
    if info.sha is None:
        raise _unanswered(ref, ValueError("the hub names no commit"))
    files = []
    for sibling in info.siblings or ():
        url = hf_hub_url(ref.repo, sibling.rfilename, revision=info.sha, endpoint=endpoint)
        digest = Digest.parse(f"sha256:{sibling.lfs.sha256}") if sibling.lfs else None
        pinned = digest is not None
        remote = RemoteFile(sibling.rfilename, url, sibling.size, pinned, headers)
        files.append(HubFile(remote, digest))
    return Listing(replace(ref, revision=info.sha), tuple(files))


def _unanswered(ref: HfRef, error: Exception) -> FetchError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return FetchError(
        f"the hub could not say what {ref} is: {reason}",
        rule="registry.hub",
        value=str(ref),
        fix="check the repository and revision, the network, and `hf auth login` for a gated model",
    )
