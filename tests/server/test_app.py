"""Transcriptions over HTTP: every format equals what `transcribe` returns; errors, limits, and who comes when."""

import io
import signal
import sys
import threading
from typing import Any

import numpy as np
import pytest

from whisper.engine.priorities import Priority, current_claim
from whisper.media.isolated.decoders import Decoders, _Process
from whisper.output.further_formats import text_of
from whisper.output.writers import WriteSRT, WriteTSV, WriteVTT
from whisper.server import app, work
from whisper.server.requests import WRITTEN
from whisper.subtitles import transcript_files
from whisper.transcribe import transcribe

from ..conftest import is_same
from ..models import random_model
from .serving import TRANSCRIPTIONS, client, error_of, listening, load_nano, nano, post, server, sound, wait_for

TRANSLATIONS = "/v1/audio/translations"
OPTIONS: dict[str, Any] = {"language": "en", "temperature": (0.0,), "sample_len": 12}


def expected(audio: bytes, **options: Any) -> Any:
    return transcribe(nano(), audio, **{**OPTIONS, **options})


def test_json_and_text() -> None:
    audio = sound()
    text = expected(audio)["text"].strip()
    assert text
    answer = post(client(), audio)
    usage = {"type": "duration", "seconds": 2.0}
    assert answer.json() == {"text": text, "languages": [{"code": "en"}], "usage": usage}
    answer = post(client(), audio, response_format="text")
    assert answer.text == text + "\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_verbose_json() -> None:
    audio = sound()
    transcript = expected(audio, word_timestamps=True)
    answer = post(client(), audio, response_format="verbose_json",
                  **{"timestamp_granularities[]": ["word", "segment"]}).json()  # fmt: skip
    assert is_same(answer["segments"], transcript["segments"])
    assert (answer["task"], answer["language"], answer["duration"]) == ("transcribe", "english", 2.0)
    words = [word for segment in transcript["segments"] for word in segment["words"]]
    assert answer["words"] == [{"word": w["word"].strip(), "start": w["start"], "end": w["end"]} for w in words]
    only_segments = post(client(), audio, response_format="verbose_json").json()
    assert "words" not in only_segments
    assert is_same(only_segments["segments"], expected(audio)["segments"])
    only_words = post(client(), audio, response_format="verbose_json", timestamp_granularities="word").json()
    assert "segments" not in only_words


@pytest.mark.parametrize(("name", "writer"), [("srt", WriteSRT), ("vtt", WriteVTT)])
def test_subtitles(name: str, writer: Any) -> None:
    audio = sound()
    file = io.StringIO()
    writer("").write_result(expected(audio, word_timestamps=True), file, {"max_words_per_line": 1, "escape_cues": True})
    answer = post(client(), audio, response_format=name, word_timestamps="true", max_words_per_line="1")
    assert answer.text == file.getvalue()
    assert answer.headers["content-type"] == f"text/{'vtt' if name == 'vtt' else 'plain'}; charset=utf-8"


@pytest.mark.parametrize("name", ["srt", "vtt", "ttml"])
def test_subtitles_by_the_rules_of_a_preset(name: str) -> None:
    audio, rules = sound(8), {"subtitle_preset": "social", "max_words_per_line": 1}
    transcript = expected(audio, word_timestamps=True)
    answer = post(client(), audio, response_format=name, **{key: str(value) for key, value in rules.items()})
    if name == "ttml":
        assert answer.text == text_of(transcript, name, rules, "recording")
        return
    file = io.StringIO()
    {"srt": WriteSRT, "vtt": WriteVTT}[name]("").write_result(transcript, file, {**rules, "escape_cues": True})
    assert answer.text == file.getvalue()
    assert answer.text.count("-->") > 1


def test_channels_are_speakers() -> None:
    audio = sound(n_channels=2)
    transcript = expected(audio, channels="separate")
    answer = post(client(), audio, response_format="diarized_json", channels="separate").json()
    assert answer["text"] == transcript["text"].strip()
    for ours, theirs in zip(transcript["segments"], answer["segments"], strict=True):
        assert theirs["speaker"] == "AB"[ours["channel"]]
        assert (theirs["text"], theirs["start"], theirs["end"]) == (ours["text"], ours["start"], ours["end"])
        assert theirs["type"] == "transcript.text.segment"
    answer = error_of(post(client(), sound(n_channels=9), response_format="diarized_json", channels="separate"))
    assert "9 channels" in answer["message"]


def test_logprobs_are_those_of_the_text() -> None:
    audio = sound()
    transcript = expected(audio, token_logprobs=True)
    answer = post(client(), audio, include="logprobs").json()
    entries = answer["logprobs"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode().strip() == answer["text"]
    kept = [
        logprob
        for segment in transcript["segments"]
        for token, logprob in zip(segment["tokens"], segment["token_logprobs"], strict=True)
        if token < 50257
    ]
    assert is_same([entry["logprob"] for entry in entries], kept)
    assert all(entry["logprob"] <= 0 for entry in entries)


def test_translations_are_english() -> None:
    model = random_model(1)
    fields = {"response_format": "verbose_json", "language": "de", "sample_len": "4"}
    answer = post(client(server(lambda name: model)), path=TRANSLATIONS, **fields).json()
    assert (answer["task"], answer["language"]) == ("translate", "english")
    transcript = transcribe(model, sound(), task="translate", language="de", temperature=0.0, sample_len=4)
    assert answer["text"] == transcript["text"].strip()
    error = error_of(post(client(), path=TRANSLATIONS))  # nano only transcribes
    assert (error["param"], error["code"]) == ("model", "invalid_value")
    assert error_of(post(client(), path=TRANSLATIONS, task="transcribe"))["param"] == "task"


def test_errors_have_openai_s_shape() -> None:
    one = client()
    for answer, status, code in (
        (one.get("/nowhere"), 404, "not_found"),
        (one.get(TRANSCRIPTIONS), 405, "method_not_allowed"),
        (one.post("/v1/models"), 405, "method_not_allowed"),
        (one.get("/v1/models/gpt-9"), 404, "model_not_found"),
        (post(one, model="gpt-9"), 404, "model_not_found"),
        (post(one, model=None), 400, "missing_required_parameter"),
        (post(one, b"no sound at all"), 400, "audio_unreadable"),
        (post(one, bem_size="3"), 400, "unknown_parameter"),
        (post(one, audio_track="7"), 400, "invalid_value"),
    ):
        assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    assert error_of(post(one, b"no sound at all"))["message"].startswith("the recording cannot be read")


def test_a_fault_of_ours_tells_nothing_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a secret of the server")

    monkeypatch.setattr(app.responses, "respond", fails)
    answer = post(client())
    assert answer.status_code == 500
    assert error_of(answer)["type"] == "server_error"
    assert "secret" not in answer.text
    assert answer.headers["x-should-retry"] == "false"


def test_a_playlist_opens_nothing() -> None:
    playlist = b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n"
    assert error_of(post(client(), playlist))["code"] == "audio_unreadable"


def test_a_small_file_of_long_sound_is_stopped_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    n_read = 0
    stream = Decoders.stream

    def counted(*given: Any, **options: Any) -> Any:
        nonlocal n_read
        for piece in stream(*given, **options):
            n_read += piece.shape[-1]
            yield piece

    monkeypatch.setattr(Decoders, "stream", counted)
    answer = post(client(server(max_audio_s=5)), sound(60))
    assert (answer.status_code, error_of(answer)["code"]) == (413, "audio_too_long")
    assert n_read < 16 * 16000


def test_a_decoder_that_crashes_is_an_unreadable_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = _Process.begin

    def crashes(process: Any, *given: Any) -> None:
        process.process.send_signal(signal.SIGSTOP)
        begin(process, *given)
        process.process.send_signal(signal.SIGKILL)

    one = client()
    assert post(one).status_code == 200  # from now on a process is ready
    with monkeypatch.context() as patched:
        patched.setattr(_Process, "begin", crashes)
        answer = post(one)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "audio_unreadable")
    assert "made its decoder crash (SIGKILL)" in answer.text
    assert post(one).status_code == 200


def test_models() -> None:
    one = client(server(alias="mine=nano", strict_models=True))
    listed = one.get("/v1/models").json()
    assert [entry["id"] for entry in listed["data"]] == ["nano", "mine"]
    assert set(listed["data"][0]) == {"id", "object", "created", "owned_by"}
    assert one.get("/v1/models/mine").json()["id"] == "mine"
    assert post(one, model="mine").status_code == 200
    assert error_of(post(one, model="whisper-1"))["param"] == "model"


def test_health_ready_and_metrics() -> None:
    made = server()
    one = client(made)
    assert one.get("/ready").json() == {"status": "ready"}
    made.is_loaded = False
    answer = one.get("/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "loading"})
    assert one.get("/health").json() == {"status": "ok"}
    answer = post(one)
    assert (answer.status_code, error_of(answer)["code"]) == (503, "not_ready")
    assert int(answer.headers["retry-after"]) > 0
    made.is_loaded = True
    post(one)
    text = one.get("/metrics").text
    assert 'sotto_requests_total{endpoint="/v1/audio/transcriptions",status="200"} 1.0' in text
    assert 'sotto_requests_total{endpoint="/v1/audio/transcriptions",status="503"} 1.0' in text
    assert "sotto_audio_seconds_total 2.0" in text
    assert "sotto_requests_running 0.0" in text


def test_a_full_queue_is_told_before_the_upload() -> None:
    made = server(max_running=1, max_queue=0)
    started, go_on = threading.Event(), threading.Event()

    def load_slowly(name: str) -> Any:
        started.set()
        assert go_on.wait(30)
        return load_nano(name)

    made.models._load = load_slowly
    answers: list[Any] = []
    one = client(made)
    thread = threading.Thread(target=lambda: answers.append(post(one)))
    thread.start()
    try:
        assert started.wait(30)
        answer = client(made).post(
            TRANSCRIPTIONS, content=b"", headers={"content-type": "multipart/form-data; boundary=x"}
        )
        error = error_of(answer)
        assert (answer.status_code, error["code"], error["type"]) == (429, "queue_full", "rate_limit_error")
        assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert client(made).get("/ready").json() == {"status": "queue_full"}
        assert client(made).get("/health").status_code == 200
    finally:
        go_on.set()
        thread.join(30)
    assert answers[0].status_code == 200
    assert made.admission.n_inside == made.admission.n_running == 0


def test_what_is_refused_while_the_server_drains() -> None:
    made = server()
    made.drain()
    answer = post(client(made))
    assert (answer.status_code, error_of(answer)["code"]) == (503, "shutting_down")
    assert client(made).get("/ready").json() == {"status": "shutting_down"}


def test_work_that_does_not_finish_while_the_server_drains() -> None:
    made = server()

    def load_and_end(name: str) -> Any:
        made.drain()
        made.cancel_all()
        return load_nano(name)

    made.models._load = load_and_end
    answer = post(client(made))
    assert (answer.status_code, error_of(answer)["code"]) == (503, "shutting_down")


def test_models_are_loaded_while_the_server_already_answers() -> None:
    made = server()
    made.is_loaded = False
    loading, go_on = threading.Event(), threading.Event()

    def load(name: str) -> Any:
        loading.set()
        assert go_on.wait(30)
        return load_nano(name)

    made.models._load = load
    with client(made) as one:
        assert loading.wait(30)
        assert one.get("/health").status_code == 200
        assert one.get("/ready").json() == {"status": "loading"}
        go_on.set()
        wait_for(lambda: one.get("/ready").status_code == 200)
        assert made.models.loaded == ["nano"]


def test_a_model_that_cannot_be_loaded_ends_the_server() -> None:
    failures: list[Exception] = []

    def load(name: str) -> Any:
        raise OSError("no such model")

    made = server(load)
    made.is_loaded = False
    made._on_failure = failures.append
    with client(made) as one:
        wait_for(lambda: failures)
        assert one.get("/ready").status_code == 503
    assert str(failures[0]) == "no such model"


def test_requests_that_run_at_once_get_what_each_gets_alone() -> None:
    audios = [sound(2, start=2 * i) for i in range(4)]
    alone = [expected(audio)["text"].strip() for audio in audios]
    assert len(set(alone)) > 1
    answers: dict[int, Any] = {}
    import httpx2 as httpx

    made = server()
    with listening(made) as address:

        def ask(i: int) -> None:
            data = {"model": "nano", "language": "en", "temperature": "[0]", "sample_len": "12"}
            files = {"file": audios[i]}
            answers[i] = httpx.post(address + TRANSCRIPTIONS, data=data, files=files, timeout=60).json()["text"]

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [answers[i] for i in range(4)] == alone


def test_silence_is_an_empty_text() -> None:
    silence = np.zeros(16000, np.int16)
    header = sound(1)[:44]
    answer = post(client(), header + silence.tobytes(), vad_filter="true")
    assert (answer.status_code, answer.json()["text"]) == (200, "")


def test_a_table_and_the_transcript_as_it_is() -> None:
    audio = sound()
    file = io.StringIO()
    WriteTSV("").write_result(expected(audio), file, {})
    answer = post(client(), audio, response_format="tsv")
    assert (answer.text, answer.headers["content-type"]) == (
        file.getvalue(),
        "text/tab-separated-values; charset=utf-8",
    )
    assert is_same(post(client(), audio, response_format="transcript").json(), expected(audio))


def test_the_text_formats_of_the_command() -> None:
    audio = sound()
    words = {"word_timestamps": "true"}
    made = expected(audio, word_timestamps=True)
    for name in WRITTEN:
        answer = post(client(), audio, response_format=name, **words)
        assert answer.status_code == 200, answer.text
        if name != "eaf":  # has the time at which it was written
            assert answer.text == transcript_files.written(made, name, name="recording")
    assert answer.headers["content-type"].startswith("text/plain")
    assert post(client(), audio, response_format="csv").headers["content-type"] == "text/csv; charset=utf-8"
    assert post(client(), audio, response_format="ctm").json()["error"]["param"] == "response_format"
    assert post(client(), audio, response_format="docx").status_code == 400


def test_a_recording_is_of_the_class_that_its_length_says(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = []
    transcribe_here = transcribe

    def seen(*arguments: Any, **options: Any) -> Any:
        claims.append(current_claim())
        return transcribe_here(*arguments, **options)

    monkeypatch.setattr(sys.modules["whisper.transcribe"], "transcribe", seen)
    one = client(server(keys=("a", "b")))
    for key in "ab":
        one.headers["authorization"] = f"Bearer {key}"
        assert post(one).status_code == 200
    monkeypatch.setattr(work, "SHORT_SECONDS", 1.0)
    assert post(one).status_code == 200
    assert [claim.priority for claim in claims] == [Priority.SHORT, Priority.SHORT, Priority.BATCH]
    assert claims[0].key != claims[1].key == claims[2].key
