"""What a key may be used for."""

from enum import StrEnum


class Scope(StrEnum):
    """One right that a key can carry; a key has at least one."""

    INFERENCE = "inference"  # the endpoints that clients use
    OPERATIONS = "operations"  # metrics and versions, for whoever runs the service
