"""A detokenizer without a vocabulary."""


class LetterDecoder:
    """Token id i becomes the letter that is i places after `a`, round and round."""

    def __init__(self, skip_special_tokens: bool = True) -> None:
        self.skip_special_tokens = skip_special_tokens

    def push(self, token_id: int, /) -> str:
        return chr(ord("a") + token_id % 26)

    def flush(self) -> str:
        return ""
