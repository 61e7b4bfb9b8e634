"""Why a picture has no preview, in one word for the catalog.

Owns: the words, and the errors that carry them. Used by: everything here that gives up. Threading: values.
A BadPicture without a word is what a parser says of bytes that contradict themselves: corrupt.
"""

from __future__ import annotations

import enum

from archivia_fs.errors import BadPicture


class Failure(enum.StrEnum):
    UNSUPPORTED = "unsupported"  # nothing here reads it
    CORRUPT = "corrupt"  # it contradicts itself, or ends too early
    LIMITS = "limits"  # more bytes, pixels or seconds than a picture may cost
    MEMORY = "memory"  # more memory than a decoder may have, or than this machine had
    CRASHED = "crashed"  # the decoder died, or answered nonsense


class NoPreview(BadPicture):
    """`failure` says what kind it is."""

    def __init__(self, message: str, failure: Failure) -> None:
        super().__init__(message)
        self.failure = failure


class NotNow(NoPreview):
    """It may be the machine's fault, so it is tried again later."""


class DecoderDied(NotNow):
    """The worker ended or had to be ended in the middle of a picture."""

    def __init__(self, message: str, failure: Failure = Failure.CRASHED) -> None:
        super().__init__(message, failure)


def failure_of(error: BadPicture) -> Failure:
    """The word for an error."""
    return error.failure if isinstance(error, NoPreview) else Failure.CORRUPT
