"""The port of the Wyoming protocol, opened and closed with the server."""

import asyncio
import socket

import pytest

from whisper.errors import OptionError
from whisper.server.wyoming.listener import Listener

from ..serving import client, server


def test_the_server_opens_and_closes_it() -> None:
    made = server(wyoming_port=0)
    assert made.wyoming is not None
    with client(made):
        port = made.wyoming.port
        with socket.create_connection(("127.0.0.1", port), 5) as one:
            one.sendall(b'{"type": "describe"}\n')
            assert one.recv(1000).startswith(b'{"type": "info"')
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_none_unless_it_is_asked_for() -> None:
    assert server().wyoming is None


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"{port} cannot be listened on"):
            asyncio.run(Listener(server(wyoming_port=port)).start())
        failures: list[Exception] = []
        made = server(wyoming_port=port)
        made._on_failure = failures.append
        with client(made):
            assert len(failures) == 1
    with pytest.raises(OptionError, match="cannot be listened on"):
        asyncio.run(Listener(server(wyoming_port=0, wyoming_host="no such host")).start())
