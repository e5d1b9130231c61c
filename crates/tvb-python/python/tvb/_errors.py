"""The exceptions of the package: one class for each kind of error, as the command has an exit code for each."""

from __future__ import annotations


class Error(Exception):
    """What tvb refuses or cannot do. ``message`` says what was expected and what was found, ``hint`` what can be done about it.

    >>> try:
    ...     tvb.open("nowhere")
    ... except tvb.Error as error:
    ...     print(error.hint)
    check the path
    """

    message: str
    hint: str | None

    def __init__(self, message: str, hint: str | None = None) -> None:
        # Both are arguments, so that the exception can be sent to another process.
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class UsageError(Error):
    """The request makes no sense, whatever the inputs hold (the command's exit code 2).

    >>> tvb.compress("base.pt", {"a": "a.pt"}, "basis", bits=7)
    Traceback (most recent call last):
    tvb.UsageError: ...
    """


class InputError(Error):
    """An input is malformed or does not fit the others, or an output is in the way (exit code 3).

    >>> tvb.compress("base.pt", {"a": "other-model.pt"}, "basis")
    Traceback (most recent call last):
    tvb.InputError: ...
    """


class FailedError(Error):
    """The machine let us down: I/O, a device (exit code 1).

    >>> tvb.compress("base.pt", {"a": "a.pt"}, "/full-disk/basis")
    Traceback (most recent call last):
    tvb.FailedError: ...
    """


for _class in (Error, UsageError, InputError, FailedError):
    # Users know them by the package's name.
    _class.__module__ = "tvb"
