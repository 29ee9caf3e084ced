"""The metrics of the server for Prometheus: counts, times, and what is running. No label holds a text, name or key."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """The metrics of one server; two in a process do not share them."""

    def __init__(self) -> None:
        self.registry = of = CollectorRegistry()
        self.requests = Counter("sotto_requests", "Requests that were answered", ["endpoint", "status"], registry=of)
        self.running = Gauge("sotto_requests_running", "Requests that are transcribed", registry=of)
        self.waiting = Gauge("sotto_requests_waiting", "Requests that upload or wait", registry=of)
        self.queue_seconds = _times("sotto_queue_seconds", "Time from upload to start", of)
        self.request_seconds = _times("sotto_request_seconds", "Time of whole requests", of, ["endpoint"])
        self.first_text_seconds = _times(
            "sotto_time_to_first_text_seconds", "Time from upload to the first text of a stream", of
        )
        self.audio_seconds = Counter("sotto_audio_seconds", "Seconds of sound that were transcribed", registry=of)
        self.work_seconds = Counter("sotto_work_seconds", "Seconds that their transcription took", registry=of)
        self.jobs = Counter("sotto_jobs", "Jobs that ended", ["outcome"], registry=of)
        self.cancelled = Counter("sotto_cancelled", "Transcriptions that were given up", ["reason"], registry=of)
        self.live_sessions = Gauge("sotto_live_sessions", "Live sessions that are open", ["protocol"], registry=of)
        self.live_refused = Counter(
            "sotto_live_refused", "Live sessions that got no place", ["protocol", "reason"], registry=of
        )
        self.live_items = Counter("sotto_live_items", "Items of live sessions", ["protocol", "outcome"], registry=of)
        self.live_audio_seconds = Counter("sotto_live_audio_seconds", "Seconds of sound in live sessions", registry=of)
        self.live_final_seconds = _times("sotto_live_final_seconds", "Time from the end of an item to its text", of)
        self.replicas_lost = Counter(
            "sotto_replicas_lost", "Times that a replica of a cluster was lost with a request", registry=of
        )
        self.upload_bytes = Counter("sotto_upload_bytes", "Bytes of uploads", registry=of)
        self.model_loaded = Gauge("sotto_model_loaded", "Whether a model is in memory", ["model"], registry=of)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def _times(name: str, help: str, registry: CollectorRegistry, labels: Sequence[str] = ()) -> Histogram:
    return Histogram(name, help, labels, registry=registry, buckets=_SECONDS)
