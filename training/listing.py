"""Long lists of names, written as text."""


def listed(text: str) -> tuple[str, ...]:
    """Return the words of a text as a tuple: a hundred names in ten lines instead of a hundred."""
    return tuple(text.split())
