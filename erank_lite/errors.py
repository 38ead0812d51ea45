"""The errors a user can act on. Each message is one line: what is wrong, and what to do."""


class ErankLiteError(Exception):
    """Base of every error this package raises on purpose."""


class ModelError(ErankLiteError):
    """The model, or the engine that should run it, cannot be used."""


class InputError(ErankLiteError):
    """The query, the documents or an option cannot be used."""
