"""Tickets: cookies by which a browser's player, which sends no key, may hear the sound of the library.

A key in the address would end in histories and logs. A ticket opens nothing but the reading of sound, for some hours;
it is signed by this process, not readable by scripts, and sent to this site by this site alone. So it is of no use to
a forged request: what changes something still needs the key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from http.cookies import CookieError, SimpleCookie

from starlette.responses import Response
from starlette.types import Scope

COOKIE = "sotto_sound"
SECONDS = 12 * 3600
PATH = "/v1/library/"
_SOUND = re.compile(r"/v1/library/rec_[0-9a-f]{32}/sound")


class Tickets:
    """Makes tickets and checks them."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def give(self, response: Response, owner: str, *, secure: bool) -> None:
        """Add a ticket of an owner to an answer; `secure` where it goes over https."""
        until = int(time.time()) + SECONDS
        value = f"{until}.{owner}.{self._sign(until, owner)}"
        response.set_cookie(COOKIE, value, max_age=SECONDS, path=PATH, secure=secure, httponly=True, samesite="strict")

    def owner_of(self, cookies: str) -> str | None:
        """Return whose ticket is in the header ``Cookie``; None where there is no valid one."""
        try:
            morsel = SimpleCookie(cookies).get(COOKIE)
        except CookieError:
            return None
        until, _, rest = ("" if morsel is None else morsel.value).partition(".")
        owner, _, signature = rest.partition(".")
        if not (until.isdecimal() and until.isascii() and len(until) < 16 and signature.isascii()):
            return None
        is_right = hmac.compare_digest(signature, self._sign(int(until), owner))
        return owner if is_right and time.time() < int(until) else None

    def admit(self, scope: Scope, cookies: str) -> bool:
        """Whether a request needs no key: it asks for sound, with a ticket."""
        asks_for_sound = scope.get("method") in ("GET", "HEAD") and _SOUND.fullmatch(scope["path"]) is not None
        return asks_for_sound and self.owner_of(cookies) is not None

    def _sign(self, until: int, owner: str) -> str:
        return hmac.new(self._secret, f"{until}.{owner}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()
