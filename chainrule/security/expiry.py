"""Whoever uses a certificate says in its log that the certificate, or its authority, expires soon: in the same words.

The files are looked at as they are now, not as they were when a connection was made: it is for the next one that a
renewed certificate counts.
"""

from __future__ import annotations

import datetime
import functools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from chainrule.errors import CredentialsError
from chainrule.process.logs import log_event
from chainrule.security.credentials import Credentials
from chainrule.security.tls_files import end_of_authority, end_of_certificate, expiry_warning

log = logging.getLogger(__name__)
LOOK_INTERVAL_S = 24 * 3600.0
RENEW = "renew it ('chainrule certificates renew')"
MAKE_ANOTHER = "make another in time, with new certificates ('chainrule certificates create' in a new folder)"


def expiry_warnings(
    whose: str, *, certificate: Path | None, authority: Path | None, now: datetime.datetime
) -> list[str]:
    """What to say of files whose certificates expire soon, or that can't be read any more; nothing where all is well.

    whose: such as "this worker's"."""
    found = []
    for path, what, end_of, remedy in (
        (certificate, f"{whose} certificate {certificate}", end_of_certificate, RENEW),
        (authority, f"the authority {authority}", end_of_authority, MAKE_ANOTHER),
    ):
        if path is not None:
            try:
                warning = expiry_warning(what, end_of(path), now=now, remedy=remedy)
            except CredentialsError as error:
                warning = str(error)
            if warning is not None:
                found.append(warning)
    return found


def tell_of_expiry(whose: str, *, certificate: Path | None, authority: Path | None) -> None:
    """Put it in the log, once."""
    now = datetime.datetime.now(datetime.UTC)
    for warning in expiry_warnings(whose, certificate=certificate, authority=authority, now=now):
        log.warning("%s", warning, extra=log_event("certificate_expires"))


def tell_client_of_expiry(credentials: Credentials) -> None:
    """The same of what a client connects with."""
    if credentials.tls is not None:
        tell_of_expiry("this client's", certificate=credentials.tls.certificate, authority=credentials.tls.ca)


def keep_telling_of_expiry(whose: str, *, certificate: Path | None, authority: Path | None) -> None:
    """Put it in the log now and every day, in a thread that ends with the process."""
    tell = functools.partial(tell_of_expiry, whose, certificate=certificate, authority=authority)
    threading.Thread(target=daily, args=(tell, time.sleep), name="expiry", daemon=True).start()


def daily(call: Callable[[], None], sleep: Callable[[float], None]) -> None:
    """Call it now and every day, until sleep, which gets seconds, raises an exception."""
    while True:
        call()
        sleep(LOOK_INTERVAL_S)
