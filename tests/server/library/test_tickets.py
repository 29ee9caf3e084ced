"""Tickets open the sound to their owner for some hours, and nothing else to anybody."""

from __future__ import annotations

import time

import pytest
from starlette.responses import Response

from whisper.server.library.tickets import COOKIE, SECONDS, Tickets

SOUND = "/v1/library/rec_" + "0" * 32 + "/sound"


def ticket(tickets: Tickets, owner: str = "ab12") -> tuple[str, str]:
    response = Response()
    tickets.give(response, owner, secure=True)
    header = response.headers["set-cookie"]
    return header.partition(";")[0], header


def test_a_ticket_names_its_owner() -> None:
    tickets = Tickets()
    cookie, header = ticket(tickets)
    assert tickets.owner_of(f"other=1; {cookie}") == "ab12"
    for attribute in ("HttpOnly", "Secure", "SameSite=strict", "Path=/v1/library/"):
        assert attribute in header
    assert Tickets().owner_of(cookie) is None


def test_a_ticket_that_was_changed_is_none() -> None:
    tickets = Tickets()
    until, owner, signature = ticket(tickets)[0].removeprefix(f"{COOKIE}=").split(".")
    for value in (f"{until}.other.{signature}", f"{int(until) + 1}.{owner}.{signature}", f"{until}.{owner}.",
                  f"{until}.{owner}", "", ".", "..", f"-1.{owner}.{signature}", f"{until}.{owner}.{signature}0",
                  "\u0663.a.b"):  # fmt: skip
        assert tickets.owner_of(f"{COOKIE}={value}") is None
    assert tickets.owner_of("") is None


def test_a_ticket_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = Tickets()
    cookie, _ = ticket(tickets)
    later = time.time() + SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert tickets.owner_of(cookie) is None


def test_only_the_reading_of_sound_is_admitted() -> None:
    tickets = Tickets()
    cookie, _ = ticket(tickets)
    assert tickets.admit({"method": "GET", "path": SOUND}, cookie)
    assert not tickets.admit({"method": "GET", "path": SOUND}, "")
    for method, path in (("DELETE", SOUND), ("POST", SOUND), ("GET", SOUND + "/"), ("GET", "/v1/library"),
                         ("GET", SOUND.removesuffix("/sound")), ("GET", "/v1/library/../x/sound")):  # fmt: skip
        assert not tickets.admit({"method": method, "path": path}, cookie)
