"""Which audio track is read: by number, by language under any of its names, and told where nobody chose."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import whisper
from whisper.audio import load_audio
from whisper.cli.main import build_parser
from whisper.errors import OptionError, WhisperError
from whisper.speech.features import Features
from whisper.transcription.channels import read_channels

from ..containers import Track, container
from ..models import random_model
from ..test_audio import RATE, melody, wav

OPTIONS: dict[str, Any] = {"language": "en", "temperature": 0, "sample_len": 8, "fp16": False}


def level(value: int, n_channels: int = 1) -> np.ndarray:
    """A second and a half whose samples all have one value, by which a track is known."""
    return np.full((n_channels, 27648), value, np.int16)


@pytest.fixture(scope="module")
def film() -> bytes:
    """German, English (stereo), English with a title, and a track without language."""
    return container(
        "matroska",
        Track([(0, level(1000))], language="ger"),
        Track([(0, level(2000, 2))], language="eng"),
        Track([(0, level(3000))], language="eng", title="commentary"),
        Track([(0, level(4000))]),
    )


def which(samples: np.ndarray) -> int:
    value = int(samples[RATE] * 32768)
    assert abs(samples * 32768 - value).max() < 1
    return value // 1000 - 1


@pytest.mark.parametrize("number", [0, 1, 2, 3, "2", np.int64(1), torch.tensor(3)])
def test_by_number(film: bytes, number: Any) -> None:
    assert which(load_audio(film, audio_track=number)) == int(number)


@pytest.mark.parametrize("name", ["ger", "GER", "deu", "de", "German", "german", "de-AT", "Deutsch"])
def test_by_a_language_under_any_name(film: bytes, name: str) -> None:
    assert which(load_audio(film, audio_track=name)) == 0


def test_of_several_in_a_language_the_best_is_taken_and_told(film: bytes) -> None:
    with pytest.warns(RuntimeWarning, match=r"2 audio tracks in 'en': 1 \(eng, flac, 2 channels\) is read"):
        assert which(load_audio(film, audio_track="en")) == 1


def test_languages_that_whisper_does_not_know_and_tags_of_all_kinds() -> None:
    tags = ["gle", "zho", "fre", "mul", "pt-BR", "qaa"]
    tracks = [Track([(0, level(1000 * (i + 1)))], language=tag) for i, tag in enumerate(tags)]
    contents = container("matroska", *tracks)
    for name, number in (("gle", 0), ("zh", 1), ("chi", 1), ("Mandarin", 1), ("fr", 2), ("fra", 2), ("mul", 3),
                         ("Portuguese", 4), ("pt", 4), ("por", 4), ("qaa", 5)):  # fmt: skip
        assert which(load_audio(contents, audio_track=name)) == number, name


def test_where_nobody_chose_it_is_told_which_was_taken() -> None:
    def two(default: int | None) -> bytes:
        return container("matroska", Track([(0, level(1000))], is_default=default == 0, language="fre"),
                         Track([(0, level(2000, 2))], is_default=default == 1))  # fmt: skip

    for default, taken in ((0, 0), (1, 1), (None, 1)):
        with pytest.warns(
            RuntimeWarning, match=r"2 audio tracks and none was chosen: .*choose with audio_track"
        ) as told:
            assert which(load_audio(two(default))) == taken
        assert f"chosen: {taken} (" in str(told[0].message)
        assert "0 (fre, flac, 1 channel), 1 (no language, flac, 2 channels)" in str(told[0].message)
        assert told[0].filename == __file__


@pytest.mark.parametrize("format", ["mp4", "mpegts"])
def test_other_containers(format: str) -> None:
    codec = {"mp4": "aac", "mpegts": "mp2"}[format]
    quiet, loud = (melody(2.0) // n for n in (20, 1))
    contents = container(format, Track([(0, quiet)], codec, "fre"), Track([(0, loud)], codec, "ita"), picture=2.0)
    for name in (1, "ita", "it", "Italian"):
        assert np.abs(load_audio(contents, audio_track=name)).max() > 0.1
    for name in (0, "fr", "fra"):
        assert np.abs(load_audio(contents, audio_track=name)).max() < 0.1


@pytest.mark.parametrize("wrong", [4, 99, "9", "it", "Klingon", "und", "no such thing", "0:1"])
def test_a_track_that_there_is_not_is_told_with_those_that_there_are(film: bytes, wrong: Any) -> None:
    match = (r"has no audio track .*; there are 0 \(ger, flac, 1 channel\), 1 \(eng, flac, 2 channels\), "
             r"2 \(eng, 'commentary', flac, 1 channel\), 3 \(no language, flac, 1 channel\)")  # fmt: skip
    with pytest.raises(OptionError, match=match):
        load_audio(film, audio_track=wrong)
    with pytest.raises(OptionError, match="has no audio track"):
        load_audio(wav(melody()), audio_track=wrong)


@pytest.mark.parametrize("wrong", [-1, "-1", 1.5, "", "  ", True, [0], b"eng", np.nan])
def test_what_is_neither_number_nor_language(film: bytes, wrong: Any) -> None:
    model = random_model(2, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1)
    for call in (load_audio, lambda s, **o: model.transcribe(s, **o, **OPTIONS),
                 lambda s, **o: whisper.align(model, s, "text", **o)):  # fmt: skip
        with pytest.raises(OptionError, match=r"audio_track must be the number of a track, from 0 on, or its language"):
            call(film, audio_track=wrong)


def test_a_single_track_may_be_asked_for() -> None:
    contents = wav(melody())
    np.testing.assert_array_equal(load_audio(contents, audio_track=0), load_audio(contents))


def test_every_door_takes_it(film: bytes) -> None:
    model = random_model(2, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1, end=4.5)
    german, other = load_audio(film, audio_track=0), load_audio(film, audio_track=3)
    options = {**OPTIONS, "audio_track": "de"}
    expected = model.transcribe(german, **OPTIONS)
    assert model.transcribe(film, **options) == expected
    assert model.transcribe([film, film], **options) == [expected, expected]
    assert whisper.transcribe_with_report(model, film, **{**options, "audit": False})[0] == expected
    assert list(whisper.iter_segments(model, film, **options)) == expected["segments"]
    assert torch.equal(Features.of(film, 80, audio_track=3).mel, Features.of(other, 80).mel)
    assert [len(read_channels(film, audio_track=i)) for i in (1,)] == [2]
    with pytest.warns(RuntimeWarning, match="one channel"):
        assert int(read_channels(film, audio_track="ger")[0][RATE]) == 1000
    text = {"text": "a", "language": "en", "fp16": False}
    assert whisper.align(model, film, audio_track=0, **text) == whisper.align(model, german, **text)
    found = [
        whisper.identify_language(model, s, fp16=False, **o) for s, o in ((film, {"audio_track": 0}), (german, {}))
    ]
    assert found[0] == found[1]


def test_samples_have_no_tracks(film: bytes) -> None:
    model = random_model(2, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1)
    for samples in (np.zeros(900, np.float32), torch.zeros(900)):
        for given in ({"audio_track": 0}, {"audio_track": "eng"}, {"container_time": True}):
            for call in (load_audio, lambda s, **o: model.transcribe(s, **o, **OPTIONS), read_channels,
                         lambda s, **o: model.transcribe(s, channels="separate", **o, **OPTIONS),
                         lambda s, **o: Features.of(s, 80, **o)):  # fmt: skip
                with pytest.raises(OptionError, match="it belongs to a file"):
                    call(samples, **given)


def test_an_error_is_one_of_ours_for_tracks_that_cannot_be_read() -> None:
    with pytest.raises(WhisperError, match=r"no audio stream|cannot be read"):
        load_audio(b"1\n00:00:00,000 --> 00:00:01,000\ntext\n\n" * 9, audio_track=0)


def test_the_command_has_it() -> None:
    parsed = build_parser().parse_args(["a.mkv", "--audio_track", "1"])
    assert (parsed.audio_track, parsed.container_time) == ("1", False)
    parsed = build_parser().parse_args(["a.mkv", "--audio_track", "eng", "--container_time", "True"])
    assert (parsed.audio_track, parsed.container_time) == ("eng", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build_parser().parse_args(["a.mkv"]).audio_track is None
