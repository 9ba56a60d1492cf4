"""The release id names the release's content, however it was written."""

from salver.contract import load_deployment

ID = "sha256:64e9a94cf06d26b5996dcd69354816a6c7eb6e89fa4b42d70f1a55afd1b653dc"


def test_the_id_is_stable(short_text: str) -> None:
    """Changing how it is computed renames every release in the world: do it on purpose only."""
    assert load_deployment(short_text).release.id == ID


def test_another_spelling_is_the_same_release(short_text: str) -> None:
    again = short_text.replace("memory: 2GiB", "memory: 2048MiB").replace(
        "name: smollm2", "name: x"
    )
    assert load_deployment(again).release.id == ID


def test_any_other_content_is_another_release(short_text: str) -> None:
    changes = [
        ("2GiB", "3GiB"),
        ("threads: 2", "threads: 1"),
        ("max_running: 64", "max_running: 63"),
        ("b179c9", "b179c8"),
        ("==0.1.2", "==0.1.3"),
    ]
    ids = {load_deployment(short_text.replace(*change)).release.id for change in changes}
    assert len(ids) == len(changes)
    assert ID not in ids


def test_policy_is_not_part_of_it(short_text: str) -> None:
    policy = short_text.replace("default_timeout: 60s", "default_timeout: 5s")
    assert load_deployment(policy).release.id == ID
