"""Settings of the server: above all, that it is not open to the network by accident."""

from pathlib import Path

import pytest

from whisper.errors import OptionError
from whisper.server.settings import LOOPBACK_HOSTS, ServeOptions, is_loopback, read_keys


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False),
     ("192.168.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_only_loopback_needs_no_key(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
    options = ServeOptions(host=host)
    if loopback:
        assert read_keys(options, {}) == ()
        assert options.hosts == LOOPBACK_HOSTS
    else:
        with pytest.raises(OptionError, match="no key is set"):
            read_keys(options, {})
        assert read_keys(ServeOptions(host=host, no_auth=True), {}) == ()
        assert read_keys(options, {"SOTTO_API_KEYS": "a, b"}) == ("a", "b")
        assert options.hosts == ("*",)


def test_keys_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nfirst\n\n second \n")
    assert read_keys(ServeOptions(key_file=str(file)), {"SOTTO_API_KEYS": "third"}) == ("third", "first", "second")
    file.write_text("two words\n")
    with pytest.raises(OptionError, match="printable ASCII"):
        read_keys(ServeOptions(key_file=str(file)), {})
    with pytest.raises(OptionError, match="cannot be read"):
        read_keys(ServeOptions(key_file=str(tmp_path / "none")), {})


def test_wrong_settings() -> None:
    with pytest.raises(OptionError, match="NAME=MODEL"):
        ServeOptions(alias=["whisper-1"])
    with pytest.raises(OptionError, match="together"):
        ServeOptions(tls_key="key.pem")
    with pytest.raises(OptionError, match="every page"):
        ServeOptions(cors_origins=["*"])
    assert ServeOptions(alias="a=b, c=d").aliases() == {"a": "b", "c": "d"}
