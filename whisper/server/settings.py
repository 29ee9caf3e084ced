"""The settings of the server, each declared once: where it listens, who may use it, and what a request may take."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OptionError
from ..options.types import FINITE, FLAG, NAMES, PATH, TEXT, check_values, number, option, whole

KEYS_VARIABLE = "SOTTO_API_KEYS"  # of the environment: keys with commas between them

ADDRESS = "where the server listens"
ACCESS = "who may use it"
LIMITS = "what a request may take"
JOBS = "jobs, which nobody waits for"
LIVE = "live sessions"
PAGE = "the page at /"
MODELS = "models"
ANY_HOST = "*"
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class ServeOptions:
    """The settings of ``whisper serve``, beside its models.

    Raises
    ------
    OptionError
        A value is wrong, or the server would be open to the network without a key.
    """

    host: str = option(
        ADDRESS, "127.0.0.1", TEXT, "address to listen on; another than this machine's own needs a key, or --no_auth"
    )
    port: int = option(ADDRESS, 8000, whole(0, 65535), "port to listen on; 0 takes a free one")
    tls_certificate: str | None = option(ADDRESS, None, PATH, "certificate chain (PEM) for https")
    tls_key: str | None = option(ADDRESS, None, PATH, "private key of the certificate (PEM)")

    key_file: str | None = option(
        ACCESS, None, PATH, f"file of API keys, one a line; {KEYS_VARIABLE} in the environment adds to them"
    )
    no_auth: bool = option(ACCESS, False, FLAG, "with True, no key is needed, whatever the host")
    allowed_hosts: Sequence[str] | None = option(
        ACCESS,
        None,
        NAMES,
        "names by which clients may call the server, with commas; where not given, those of this machine if it listens "
        "there alone, else any",
    )
    cors_origins: Sequence[str] | None = option(
        ACCESS, None, NAMES, "origins whose web pages may call the server, such as https://example.org, with commas"
    )

    max_upload_mb: float = option(LIMITS, 512, number(0, FINITE, above=True), "megabytes of one upload")
    max_audio_s: float = option(LIMITS, 14400, number(0, FINITE, above=True), "seconds of sound in one upload")
    max_running: int = option(LIMITS, 16, whole(1, 1024), "requests that are transcribed at once")
    max_queue: int = option(LIMITS, 64, whole(0), "requests that wait beside them; further ones are refused with 429")
    upload_timeout_s: float = option(
        LIMITS, 30, number(0, FINITE, above=True), "an upload of which nothing comes for so many seconds is given up"
    )
    graceful_timeout_s: float = option(
        LIMITS, 30, number(0, FINITE), "seconds that running requests get to finish when the server is stopped"
    )

    data_dir: str | None = option(
        JOBS, None, PATH, "folder where jobs are kept, over restarts, too; without one there are no jobs"
    )
    max_running_jobs: int = option(JOBS, 2, whole(1, 64), "jobs that run at once, beside other requests")
    max_jobs: int = option(JOBS, 256, whole(1), "jobs that wait or run; further ones are refused with 429")
    max_jobs_mb: float = option(JOBS, 16384, number(0, FINITE, above=True), "megabytes of their uploads together")
    job_retention_hours: float = option(
        JOBS, 24, number(0, FINITE), "hours after which a job that has ended is forgotten"
    )

    max_sessions: int = option(LIVE, 16, whole(1, 1024), "live sessions at once; further ones are refused")
    max_sessions_per_key: int = option(LIVE, 8, whole(1, 1024), "of them, those of one key")
    max_session_s: float = option(
        LIVE, 3600, number(1, FINITE), "seconds that a live session may last; then it is ended, with its last text"
    )
    wyoming_port: int | None = option(
        LIVE,
        None,
        whole(0, 65535),
        "port for the Wyoming protocol of Home Assistant, usually 10300; 0 takes a free one",
    )
    wyoming_host: str = option(
        LIVE, "127.0.0.1", TEXT,
        "address for it; the protocol has no keys, so name another than this machine's own only in a network you trust",
    )  # fmt: skip

    page: bool = option(PAGE, True, FLAG, "with False, there is no page for people, and no library")
    library: str | None = option(
        PAGE,
        None,
        PATH,
        "folder where the page keeps recordings and transcripts; without one, they are removed when the server ends",
    )

    job_folders: Sequence[str] | None = option(
        PAGE,
        None,
        NAMES,
        "folders of whisper jobs, with commas, whose results the page shows in its library, also those to come; not "
        "with keys",
    )

    alias: Sequence[str] | None = option(
        MODELS, None, NAMES, "further names of models, such as whisper-1=base, with commas"
    )
    strict_models: bool = option(
        MODELS, False, FLAG, "with True, OpenAI's names, such as whisper-1, only mean a model where an alias says so"
    )
    unload_after_s: float | None = option(
        MODELS, None, number(0, FINITE), "free the memory of a model that was not used for so many seconds"
    )

    def __post_init__(self) -> None:
        check_values(self)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise OptionError("tls_certificate and tls_key are needed together")
        for origin in self.cors_origins or ():
            if origin == ANY_HOST:
                raise OptionError("cors_origins: every page of the web could use the server; name the origins")
        if self.library is not None and not self.page:
            raise OptionError("library is for the page, which page=False turns off")
        if self.job_folders and not self.page:
            raise OptionError("job_folders is for the page, which page=False turns off")
        self.aliases()

    def aliases(self) -> dict[str, str]:
        """Return what each alias stands for."""
        found = {}
        for text in self.alias or ():
            name, equals, model = text.partition("=")
            if not (equals and name.strip() and model.strip()):
                raise OptionError(f"alias must be NAME=MODEL, such as whisper-1=base, not {text!r}")
            found[name.strip()] = model.strip()
        return found

    def page_address(self, port: int) -> str:
        """Return where this machine's browsers find the page."""
        host = "localhost" if is_loopback(self.host) or self.host in ("0.0.0.0", "::", "") else self.host
        return f"http{'s' if self.tls_certificate else ''}://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return the values of the header ``Host`` that are taken, without ports."""
        if self.allowed_hosts is not None:
            return tuple(host.lower() for host in self.allowed_hosts)
        return LOOPBACK_HOSTS if is_loopback(self.host) else (ANY_HOST,)

    @property
    def max_upload_bytes(self) -> int:
        """Return the size of the largest upload."""
        return int(self.max_upload_mb * 1e6)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_keys(options: ServeOptions, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the API keys, none where none are needed.

    Raises
    ------
    OptionError
        The file of keys cannot be read, a key is not plain text, or the server would be open to the network.
    """
    keys = environment.get(KEYS_VARIABLE, "").split(",")
    if options.key_file is not None:
        try:
            lines = Path(options.key_file).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise OptionError(f"key_file {options.key_file} cannot be read: {error}") from error
        keys += [line for line in lines if not line.lstrip().startswith("#")]
    keys = [key.strip() for key in keys if key.strip()]
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise OptionError("an API key must be printable ASCII without spaces, as it is sent in a header")
    if options.no_auth:
        return ()
    if not keys and not is_loopback(options.host):
        raise OptionError(
            f"host {options.host} can be reached from other machines, and no key is set: put keys into "
            f"{KEYS_VARIABLE} or --key_file, or say --no_auth True"
        )
    return tuple(keys)
