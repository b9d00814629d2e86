"""Which pages may use a gateway that asks for no key. A browser lets any page connect to its user's own machine.

Browsers say where a page came from (``Origin``) and where it connects to (``Host``). The two differ for a stranger's
page. They are equal for one whose name its owner lets resolve to this machine (DNS rebinding): so the host must be
an address, or a name that means nothing but this machine. Other clients send no ``Origin`` and are not concerned.
"""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from shared.errors import UnauthorizedError

_SHOWN: Final = 80
"""Characters of a header that an error quotes."""


def check_origin(origin: str | None, host: str) -> None:
    """Let a page use this gateway, or do not.

    Args:
        origin: of the page, as the browser says; None: this is no page.
        host: the header ``Host``.

    Raises:
        UnauthorizedError: the page is a stranger's, or may be.
    """
    if origin is None:
        return
    if origin.partition("://")[2] != host:
        message = f"Origin {origin[:_SHOWN]!r}: without keys only pages of this host may connect"
        raise UnauthorizedError(message)
    if not _is_this_machine(host):
        message = (
            f"Host {host[:_SHOWN]!r}: without keys only pages under an IP address or localhost may connect; to serve"
            " them under another name, set authorized_ids"
        )
        raise UnauthorizedError(message)


def _is_this_machine(host: str) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
