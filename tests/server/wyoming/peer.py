"""The package `wyoming`, whose messages and client the tests speak; on Python 3.11 and 3.12 its import warns."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of audioop, for which it has another way from 3.13 on
    from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncClient
    from wyoming.error import Error
    from wyoming.info import Describe, Info
    from wyoming.ping import Ping, Pong

__all__ = [
    "AsyncClient", "AudioChunk", "AudioStart", "AudioStop", "Describe", "Error", "Info", "Ping", "Pong", "Transcribe",
    "Transcript", "TranscriptChunk", "TranscriptStart", "TranscriptStop",
]  # fmt: skip
