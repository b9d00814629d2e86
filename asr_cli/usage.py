"""The error that ends a command with a message."""


class UsageError(Exception):
    """The user, or what the user asked for, is wrong: shown as one message, without a traceback."""
