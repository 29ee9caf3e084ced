"""From a form to a checked request."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from whisper.options.transcription import options_of_transcribe
from whisper.options.types import facts
from whisper.server.errors import RequestError
from whisper.server.requests import OPTIONS, TranscriptionRequest, check_format, read_request, seconds_of_client


def read(translates: bool = False, **fields: Any) -> TranscriptionRequest:
    return read_request({"model": "whisper-1", **fields}, translates=translates)


def refused(translates: bool = False, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        read(translates, **fields)
    assert error.value.status == 400
    return error.value


def test_a_plain_request_leaves_all_defaults() -> None:
    request = read()
    assert request.options == {}
    assert (request.response_format, request.stream, request.with_segments) == ("json", False, True)


def test_openai_names() -> None:
    request = read(
        prompt="Ada, Grace", keywords=["Lovelace", "Hopper"], language="de", temperature="0",
        chunking_strategy={"type": "server_vad", "threshold": "0.4", "silence_duration_ms": "300"},
    )  # fmt: skip
    assert request.options == {
        "initial_prompt": "Ada, Grace",
        "hotwords": ["Lovelace", "Hopper"],
        "language": "de",
        "vad_filter": True,
        "vad_parameters": "threshold=0.4,min_silence_duration_ms=300",
    }
    assert read(chunking_strategy="auto").options == {"vad_filter": True}
    as_json = read(chunking_strategy='{"type": "server_vad", "prefix_padding_ms": 100}')
    assert as_json.options["vad_parameters"] == "speech_pad_ms=100"
    assert read(temperature="0.3").options == {"temperature": 0.3}


def test_values_of_options() -> None:
    request = read(
        beam_size="5", patience="1.5", hotwords="Ada, Grace", suppress_tokens="[1, 2]", audit="true", fp16="False",
        clip_timestamps=["0", "1.5"], languages='["en", "de"]', temperature="0,0.5", best_of="", seed="7",
        vad_parameters={"threshold": "0.4"}, prefix="[Music] la", audio_track="1", no_speech_threshold="None",
    )  # fmt: skip
    assert request.options == {
        "beam_size": 5, "patience": 1.5, "hotwords": ("Ada", "Grace"), "suppress_tokens": [1, 2], "audit": True,
        "fp16": False, "clip_timestamps": [0.0, 1.5], "languages": ["en", "de"], "temperature": [0.0, 0.5],
        "best_of": None, "seed": 7, "vad_parameters": "threshold=0.4", "prefix": "[Music] la", "audio_track": 1,
        "no_speech_threshold": None,
    }  # fmt: skip


def test_every_option_has_a_field() -> None:
    of_this_process = {"verbose", "progress", "cancel", "known_speakers", "speaker_backend"}
    assert {f.name for f in options_of_transcribe()} - set(OPTIONS) == of_this_process


VOICE = "data:audio/wav;base64," + base64.b64encode(b"RIFF").decode()


@pytest.mark.parametrize("name", [name for name, f in OPTIONS.items() if facts(f).kind.metavar in ("N", "X", "BOOL")])
def test_every_option_names_itself_where_its_value_is_wrong(name: str) -> None:
    assert refused(**{name: "wrong"}).param == name


@pytest.mark.parametrize(
    ("fields", "param", "code", "words"),
    [
        ({"bem_size": "3"}, "bem_size", "unknown_parameter", "beam_size"),
        ({"qqqqqq": "3"}, "qqqqqq", "unknown_parameter", "openapi"),
        ({"known_speakers": "a=/etc/passwd"}, "known_speakers", "unknown_parameter", "no field"),
        ({"language": "klingon"}, "language", "invalid_value", "klingon"),
        ({"language": "en", "languages": ["de"]}, "languages", "invalid_value", "not both"),
        ({"prompt": "a", "initial_prompt": "b"}, "prompt", "invalid_value", "contradict"),
        ({"beam_size": "33"}, "beam_size", "invalid_value", "32"),
        ({"temperature": "[" + "0," * 20 + "0]"}, "temperature", "invalid_value", "16"),
        ({"temperature": "nan"}, "temperature", "invalid_value", "temperature"),
        ({"patience": "2"}, "patience", "invalid_value", "beam_size"),
        ({"clip_timestamps": "3,1"}, "clip_timestamps", "invalid_value", "clip"),
        ({"vad_parameters": "thresh=1", "vad_filter": "true"}, "vad_parameters", "invalid_value", "thresh"),
        ({"chunking_strategy": "manual"}, "chunking_strategy", "invalid_value", "auto"),
        ({"chunking_strategy": {"type": "server_vad", "x": "1"}}, "chunking_strategy", "invalid_value", "'x'"),
        ({"chunking_strategy": "auto", "vad_filter": "false"}, "chunking_strategy", "invalid_value", "vad_filter"),
        ({"task": "lang_id"}, "task", "invalid_value", "translate"),
        ({"response_format": "xml"}, "response_format", "invalid_value", "verbose_json"),
        ({"response_format": "diarized_json", "speakers": "false"}, "response_format", "invalid_value", "channels"),
        ({"response_format": "srt", "stream": "true"}, "response_format", "invalid_value", "stream"),
        ({"stream": "perhaps"}, "stream", "invalid_value", "true"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities", "invalid_value", "verbose_json"),
        ({"timestamp_granularities": ["line"]}, "timestamp_granularities", "invalid_value", "segment"),
        ({"include": "logprobs", "response_format": "text"}, "include", "invalid_value", "json"),
        ({"max_line_width": "9"}, "max_line_width", "invalid_value", "srt"),
        ({"max_line_width": "9", "response_format": "srt"}, "max_line_width", "invalid_value", "word_timestamps"),
        ({"subtitle_preset": "imax", "response_format": "srt"}, "subtitle_preset", "invalid_value", "netflix"),
        ({"subtitle_preset": "bbc", "response_format": "text"}, "subtitle_preset", "invalid_value", "vtt"),
        ({"subtitle_preset": "bbc", "cuts": "/etc/passwd"}, "cuts", "unknown_parameter", "cuts"),
        ({"max_cps": "17", "response_format": "srt"}, "max_cps", "invalid_value", "subtitle_preset"),
        ({"subtitle_preset": "whisper", "fps": "25", "response_format": "srt"}, "fps", "invalid_value", "preset"),
        ({"subtitle_preset": "bbc", "max_duration": "0.5", "response_format": "srt"}, "max_duration",
         "invalid_value", "min_duration"),
        ({"subtitle_preset": "bbc", "response_format": "srt", "word_timestamps": "false"}, "word_timestamps",
         "invalid_value", "contradicts"),
        ({"highlight_words": "true", "response_format": "ass"}, "highlight_words", "invalid_value", "vtt"),
        ({"karaoke": "true", "response_format": "vtt"}, "karaoke", "invalid_value", "word_timestamps"),
        ({"karaoke": "true", "response_format": "srt"}, "karaoke", "invalid_value", "lrc"),
        ({"cue_settings": "here", "response_format": "vtt"}, "cue_settings", "invalid_value", "line"),
        ({"frame_rate": "26", "response_format": "edl"}, "frame_rate", "invalid_value", "23.976"),
    ],
)  # fmt: skip
def test_refused(fields: dict[str, Any], param: str | None, code: str, words: str) -> None:
    error = refused(**fields)
    assert (error.param, error.code) == (param, code)
    assert words in str(error)


def test_the_model_is_needed() -> None:
    with pytest.raises(RequestError, match="which model") as error:
        read_request({}, translates=False)
    assert error.value.code == "missing_required_parameter"


def test_translations() -> None:
    assert read(translates=True).options == {"task": "translate"}
    assert read(translates=True).is_translation
    assert read(task="translate").is_translation
    assert refused(translates=True, task="transcribe").param == "task"


def test_granularities() -> None:
    words = read(response_format="verbose_json", timestamp_granularities=["word"])
    assert (words.with_words, words.with_segments, words.options["word_timestamps"]) == (True, False, True)
    both = read(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (both.with_words, both.with_segments) == (True, True)


def test_a_preset_turns_word_times_on_and_the_language_decides_its_numbers() -> None:
    asked = read(response_format="srt", subtitle_preset="netflix", max_cps="20", language="ja")
    assert asked.options == {"language": "ja", "word_timestamps": True}
    assert asked.layout == {"subtitle_preset": "netflix", "max_cps": 20.0}
    assert "word_timestamps" not in read(response_format="srt", subtitle_preset="whisper").options
    narrow = {"response_format": "srt", "subtitle_preset": "netflix", "language": "ja", "max_line_width": "5"}
    assert read(**narrow).layout is not None
    assert refused(translates=True, **narrow).param == "max_line_width"  # in English, so there must be 8


def test_another_format_keeps_what_it_has_a_place_for() -> None:
    asked = read(response_format="vtt", subtitle_preset="bbc", cue_settings="line:85%")
    assert check_format(asked, "srt").layout == {"subtitle_preset": "bbc"}
    assert check_format(asked, "json").layout is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("600", 600.0), (None, float("inf")), ("nan", float("inf")), ("-1", float("inf"))]
)
def test_how_long_a_client_waits(text: str | None, seconds: float) -> None:
    assert seconds_of_client(text) == seconds


def test_diarized_json_tells_speakers_by_their_voices_or_channels() -> None:
    def asked(**given: Any) -> Any:
        return read_request({"model": "whisper-1", "response_format": "diarized_json", **given}, translates=False)

    assert asked().options == {"speakers": True}
    assert asked(num_speakers="3").options == {"num_speakers": 3}
    assert asked(channels="separate").options == {"channels": "separate"}
    known = asked(known_speaker_names=["Ann", "Bo"], known_speaker_references=[VOICE, VOICE], min_speakers="2")
    assert (known.voices, known.options) == ({"Ann": b"RIFF", "Bo": b"RIFF"}, {"min_speakers": 2})
    with pytest.raises(RequestError, match="speakers=true"):
        check_format(replace(asked(), options={}), "diarized_json")


@pytest.mark.parametrize(
    ("names", "sounds", "param", "words"),
    [
        (["a"], [], "references", "1 names"),
        (["a"] * 5, [VOICE] * 5, "names", "at most 4"),
        (["a", "a"], [VOICE] * 2, "names", "the same"),
        ([" "], [VOICE], "names", "characters"),
        (["a" * 41], [VOICE], "names", "characters"),
        (["a"], ["/etc/passwd"], "references", "data URL"),
        (["a"], ["data:audio/wav;base64,!"], "references", "data URL"),
        (["a"], ["data:audio/wav;base64,"], "references", "data URL"),
    ],
)
def test_voices_that_are_none_are_refused(names: list[str], sounds: list[str], param: str, words: str) -> None:
    error = refused(known_speaker_names=names, known_speaker_references=sounds)
    assert error.body["error"]["param"] == f"known_speaker_{param}"
    assert words in error.body["error"]["message"]
