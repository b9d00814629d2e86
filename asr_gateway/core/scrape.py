"""Whose metrics ``/metrics`` includes: ``URL``, or ``NAME=URL`` to label them so."""

import re
from typing import Final
from urllib.parse import urlsplit

from shared.errors import ConfigError

_SCHEMES: Final = ("http://", "https://")
_NAMED: Final = re.compile(r"(.+?)=(https?://.+)")


def scrape_target(source: str) -> tuple[str, str]:
    """Return the label and the URL that ``source`` names; without a name, host and port are one.

    Raises:
        ConfigError: there is no URL in it.
    """
    named = None if source.startswith(_SCHEMES) else _NAMED.fullmatch(source)
    name, url = named.groups() if named else ("", source)
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port beyond 65535
        is_url = False
    if not is_url:
        message = f"scrape {source!r}: must be an http URL, or NAME=URL"
        raise ConfigError(message)
    return name or urlsplit(url).netloc, url
