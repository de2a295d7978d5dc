"""Failures of a run that a person can act on."""


class RunError(RuntimeError):
    """A run cannot start or go on: one or two lines that say what, where, and what to do."""


class UsageError(ValueError):
    """The request itself is wrong: a name, a field or a value."""
