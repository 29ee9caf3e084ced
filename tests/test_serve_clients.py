"""The official client of OpenAI against the server: every format, streams, lists and objects, errors and retries."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import is_same
from .server.serving import listening, nano, server, sound

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.peers

OURS = {"temperature": "[0]", "sample_len": 12}


@pytest.fixture(scope="module")
def speech() -> bytes:
    return sound()


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with listening(server(keys=("right",))) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="right") as one:
        yield one


def create(client: Any, speech: bytes, **options: Any) -> Any:
    file = io.BytesIO(speech)
    file.name = "a.wav"
    ours = {**OURS, **options.pop("extra_body", {})}
    given = {"model": "whisper-1", "file": file, "language": "en", **options}
    return client.audio.transcriptions.create(**given, extra_body=ours)


@pytest.fixture(scope="module")
def expected(speech: bytes) -> Any:
    return nano().transcribe(speech, language="en", temperature=0.0, sample_len=12, word_timestamps=True)


def test_json(client: Any, speech: bytes, expected: Any) -> None:
    answer = create(client, speech)
    assert answer.text == expected["text"].strip()
    assert (answer.usage.type, answer.usage.seconds) == ("duration", 2.0)
    assert answer.languages[0].code == "en"


@pytest.mark.parametrize("name", ["text", "srt", "vtt"])
def test_plain_formats(client: Any, speech: bytes, expected: Any, name: str) -> None:
    answer = create(client, speech, response_format=name)
    assert isinstance(answer, str)
    assert expected["segments"][0]["text"].strip() in answer


def test_verbose_json(client: Any, speech: bytes, expected: Any) -> None:
    answer = create(client, speech, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (answer.language, answer.duration) == ("english", 2.0)
    assert [s.text for s in answer.segments] == [s["text"] for s in expected["segments"]]
    assert is_same([s.avg_logprob for s in answer.segments], [s["avg_logprob"] for s in expected["segments"]])
    assert [w.word for w in answer.words] == expected["text"].split()


def test_diarized_json(client: Any) -> None:
    answer = create(client, sound(n_channels=2), response_format="diarized_json", extra_body={"channels": "separate"})
    assert {segment.speaker for segment in answer.segments} == {"A", "B"}


def test_speakers_by_their_voices(client: Any, speech: bytes) -> None:
    """Without a word of Sotto's own: what programs for OpenAI's diarizing model send."""
    known = {"known_speaker_names": ["Ann"], "known_speaker_references": [as_data_url(speech)]}
    answer = create(client, speech, response_format="diarized_json", chunking_strategy="auto", **known)
    assert type(answer).__name__ == "TranscriptionDiarized"
    assert {segment.speaker for segment in answer.segments} <= {"A", "Ann"}
    assert "".join(segment.text for segment in answer.segments).strip() == answer.text
    *_, done = found = list(create(client, speech, response_format="diarized_json", stream=True, **known))
    segments = [event for event in found if event.type == "transcript.text.segment"]
    assert [(s.text, s.speaker) for s in segments] == [(s.text, s.speaker) for s in answer.segments]
    assert done.text == answer.text


def as_data_url(sound: bytes) -> str:
    return "data:audio/wav;base64," + base64.b64encode(sound).decode()


def test_stream(client: Any, speech: bytes, expected: Any) -> None:
    *deltas, done = create(client, speech, stream=True, include=["logprobs"])
    assert {type(event).__name__ for event in deltas} == {"TranscriptionTextDeltaEvent"}
    assert "".join(event.delta for event in deltas) == done.text == expected["text"].strip()
    assert b"".join(bytes(entry.bytes) for entry in done.logprobs).decode().strip() == done.text


def test_lists_and_objects(client: Any, speech: bytes) -> None:
    vad = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 300}
    answer = create(client, speech, keywords=["computer"], chunking_strategy=vad, prompt="One.")
    assert answer.text
    openai_languages = create(client, speech, language=openai.omit, languages=["en", "de"])
    assert openai_languages.languages[0].code in ("en", "de")


@pytest.mark.filterwarnings("ignore:deprecated")  # by OpenAI, not by us
def test_translation_by_a_model_that_cannot(client: Any, speech: bytes) -> None:
    with pytest.raises(openai.BadRequestError, match="does not translate"):
        client.audio.translations.create(model="whisper-1", file=("a.wav", speech), extra_body=OURS)


def test_models(client: Any) -> None:
    assert "nano" in [model.id for model in client.models.list()]
    assert client.models.retrieve("whisper-1").id == "whisper-1"


@pytest.mark.parametrize(
    ("options", "kind", "param", "code"),
    [
        ({"model": "gpt-9"}, "NotFoundError", "model", "model_not_found"),
        ({"language": "klingon"}, "BadRequestError", "language", "invalid_value"),
        ({"extra_body": {"bem_size": 3}}, "BadRequestError", "bem_size", "unknown_parameter"),
        ({"known_speaker_names": ["a"]}, "BadRequestError", "known_speaker_references", "invalid_value"),
        ({"file": ("a.wav", b"no sound")}, "BadRequestError", "file", "audio_unreadable"),
    ],
)
def test_errors(client: Any, speech: bytes, options: dict[str, Any], kind: str, param: str, code: str) -> None:
    with pytest.raises(getattr(openai, kind)) as error:
        create(client, speech, **options)
    assert (error.value.param, error.value.code) == (param, code)
    assert error.value.request_id.startswith("req_")


def test_a_wrong_key(client: Any, speech: bytes) -> None:
    with pytest.raises(openai.AuthenticationError) as error:
        create(client.with_options(api_key="wrong"), speech)
    assert error.value.code == "invalid_api_key"


def test_an_upload_that_is_too_large_is_an_answer_and_no_broken_pipe() -> None:
    with (
        listening(server(max_upload_mb=0.1)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0) as client,
        pytest.raises(openai.APIStatusError) as error,
    ):
        create(client, sound(600))
    assert (error.value.status_code, error.value.code) == (413, "file_too_large")


def test_a_full_server_is_tried_again(speech: bytes) -> None:
    made = server(max_running=1, max_queue=0)
    made.admission.mean_seconds = 1.0
    made.admission.n_inside = 1  # somebody else, who leaves after the first refusal
    inside = made.admission.inside

    def leave(*given: Any) -> Any:
        context = inside(*given)
        made.admission.n_inside -= made.admission.is_full and bool(refused)
        refused.append(1)
        return context

    refused: list[int] = []
    made.admission.inside = leave  # type: ignore[method-assign]
    with (
        listening(made) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="x") as client,
    ):
        assert create(client, speech).text
    assert len(refused) == 2
