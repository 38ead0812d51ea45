"""The errors a user can act on: what is wrong in one line, and what to do about it in another."""

from __future__ import annotations


class ErankLiteError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        message: what is wrong.
        hint: what to do about it, or None.

    Example:
        >>> print(ErankLiteError("there is no file `a.gguf`", "check the path"))
        there is no file `a.gguf`
        hint: check the path
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class ModelError(ErankLiteError):
    """The model, or the engine that should run it, cannot be used."""


class InputError(ErankLiteError):
    """The query, the documents or an option cannot be used."""


def missing_extra(feature: str, package: str, extra: str) -> ModelError:
    """Return the error to raise where `feature` needs `package`, which an extra installs.

    Example:
        >>> print(missing_extra("the gptq engine", "gptqmodel", "gptq"))
        the gptq engine needs gptqmodel, which is not installed
        hint: pip install 'erank-lite[gptq]'
    """
    verb = "are" if " and " in package else "is"
    return ModelError(
        f"{feature} needs {package}, which {verb} not installed",
        f"pip install 'erank-lite[{extra}]'",
    )
