"""How the front ends say no."""

from __future__ import annotations


class RefusalError(Exception):
    """What was asked makes no sense or cannot be done; the text is the message.

    `usage` asks for the tool's usage text beside it.
    """

    def __init__(self, text: str, *, usage: bool = False) -> None:
        super().__init__(text)
        self.usage = usage
