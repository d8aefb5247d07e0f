"""The one error that is shown to a user without a traceback."""


class UserError(ValueError):
    """Bad input: the message says what was given, what was expected, what exists and what to do. Exit code 2."""
