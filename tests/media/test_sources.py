"""What a name means: standard input, FFmpeg's protocols, files; the same in Python and for the command."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import whisper
from whisper.audio import load_audio, log_mel_spectrogram
from whisper.cli import main as cli_module
from whisper.cli.main import cli
from whisper.errors import AudioError
from whisper.media import sources
from whisper.speech.features import Features
from whisper.transcription.channels import read_channels

from ..models import random_model
from ..test_audio import OneWay, encode, melody, wav

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ["-", "pipe:", "pipe:0", "fd:", "fd:0", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"]


def send(monkeypatch: pytest.MonkeyPatch, contents: bytes) -> None:
    """Make contents arrive at standard input, which cannot seek."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(OneWay(contents))))


@pytest.mark.parametrize("name", NAMES)
def test_standard_input_is_read_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = encode(melody(1.3), "ipod", "alac")  # its index stands at the end: it is no stream
    send(monkeypatch, contents)
    np.testing.assert_array_equal(load_audio(name), load_audio(contents))
    with pytest.raises(AudioError, match=r"standard input is empty \(0 bytes\).*read already"):
        load_audio(name)


def test_every_door_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = wav(melody(3.0, n_channels=2))
    model = random_model(2, n_state=32, n_head=1, n_audio_layer=1, n_text_layer=1, end=4.5)
    options: dict[str, Any] = {"language": "en", "temperature": 0, "sample_len": 8, "fp16": False}
    for call in (
        log_mel_spectrogram, lambda s: Features.of(s, 80).window(0, 300), read_channels,
        lambda s: model.transcribe(s, **options), lambda s: model.transcribe([s, contents], **options),
        lambda s: list(whisper.iter_segments(model, s, **options)),
        lambda s: model.transcribe(s, channels="separate", **options),
    ):  # fmt: skip
        send(monkeypatch, contents)
        ours, expected = call("-"), call(contents)
        assert repr(ours) == repr(expected)
    send(monkeypatch, contents)
    with pytest.raises(AudioError, match="2 of the recordings are standard input, which can be read only once"):
        model.transcribe(["-", contents, "/dev/stdin"], **options)


def test_a_spectrogram_of_somebody_else_does_not_use_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = wav(melody(2.0))
    send(monkeypatch, contents)
    features = Features.of(
        "-", 80, log_mel_spectrogram=lambda source, *_, **__: log_mel_spectrogram(source, 80, 480000)
    )
    np.testing.assert_array_equal(features.samples(0, 32000), load_audio(contents))


def closed() -> Any:
    stream = io.TextIOWrapper(io.BytesIO(b"x"))
    stream.close()
    return stream


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        (lambda: None, "standard input is closed"),
        (closed, "standard input is closed"),
        (lambda: io.TextIOWrapper(io.BytesIO()), r"standard input is empty \(0 bytes\)"),
        (lambda: io.StringIO("text"), "standard input is text here"),
        (
            lambda: SimpleNamespace(isatty=lambda: True, buffer=io.BytesIO(wav(melody()))),
            "standard input is a terminal",
        ),
        (lambda: io.TextIOWrapper(io.BytesIO(b"no sound" * 99)), "standard input cannot be read as a recording"),
        (lambda: SimpleNamespace(buffer=SimpleNamespace(read=lambda n: 1 / 0)), "standard input fails to read"),
    ],
)
def test_where_nothing_can_be_read_that_is_said(
    stdin: Any, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("-", "/dev/stdin"):
        monkeypatch.setattr(sys, "stdin", stdin())
        with pytest.raises(AudioError, match=message):
            load_audio(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", stdin())
    assert cli(["-", "--model", "nano", "-o", "out"]) == 1
    err = capsys.readouterr().err
    assert err.count("error: ") == 1
    assert message.replace("\\", "").split(" (0")[0] in err


def test_a_binary_stream_in_its_place_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", OneWay(wav(melody())))
    assert load_audio("-").shape == (16000,)


def test_files_of_such_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    send(monkeypatch, b"")
    for name in ("-", "pipe:0", "fd:0", "data:x", "concat:a|b", "file:x.wav", "http:x.wav"):
        Path(name).write_bytes(wav(melody()))
        assert load_audio(f"./{name}").shape == (16000,)
        assert load_audio(Path(f"./{name}")).shape == (16000,), "pathlib makes - of ./-"
        assert load_audio(tmp_path / name).shape == (16000,)
    for name in ("data:x", "concat:a|b", "file:x.wav", "http:x.wav"):
        assert load_audio(name).shape == (16000,)


def addresses(folder: Path) -> list[str]:
    """Names that FFmpeg reads through a protocol, all of the same second of sound."""
    contents = wav(melody())
    (folder / "a.wav").write_bytes(contents)
    (folder / "1.part").write_bytes(contents[:5000])
    (folder / "2.part").write_bytes(contents[5000:])
    coded = base64.b64encode(contents).decode()
    return [
        "file:a.wav", f"file:{folder}/a.wav", f"file://{folder}/a.wav", "concat:1.part|2.part",
        f"data:audio/wav;base64,{coded}", "subfile,,start,0,end,0,,:a.wav", "cache:a.wav", "async:a.wav",
    ]  # fmt: skip


def test_protocols_in_python_and_for_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in addresses(tmp_path):
        assert load_audio(name).shape == (16000,), name[:60]
        assert cli_module.is_there(name), name[:60]
    assert not capsys.readouterr().err
    for name in ("nowhere.wav", "file:nowhere.wav", "file:///nowhere.wav", "C:nowhere.wav", "a|b", ""):
        assert not cli_module.is_there(name)
        assert "there is no such file" in capsys.readouterr().err
        with pytest.raises(AudioError, match="there is no file"):
            load_audio(name)
    (tmp_path / "empty.wav").touch()
    for name, message in (("file:empty.wav", "is empty"), (f"file:{tmp_path}", "is a folder")):
        with pytest.raises(AudioError, match=message):
            load_audio(name)


def test_messages_do_not_give_megabytes_back(tmp_path: Path) -> None:
    with pytest.raises(AudioError) as caught:
        load_audio(f"data:audio/wav;base64,{'AAAA' * 100000}")
    assert len(str(caught.value)) < 1000
    assert sources.shown("short.wav") == "short.wav"


# ---------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------


def test_the_files_of_standard_input_and_of_addresses(tmp_path: Path) -> None:
    named = cli_module.name_outputs(["-", "a/-", "pipe:0", "/dev/stdin", "concat:x.wav|y.wav", "data:a/b;base64,AA"])
    assert [recording.stem for recording in named] == ["-", "-.2", "pipe:0", "stdin", "concat:x.wav|y", "data"]


def test_twice_in_a_command_is_an_error_before_work_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_module, "load", lambda *_: pytest.fail("a model is loaded"))
    for names in (["-", "-"], ["-", "pipe:0"], ["/dev/stdin", "x.wav", "-"]):
        with pytest.raises(SystemExit) as leaving:
            cli([*names, "--model", "nano"])
        assert leaving.value.code == 2
        assert "2 of the recordings are standard input, which can be read only once" in capsys.readouterr().err


def test_a_pipe_into_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "whisper", "--model", "nano", "-f", "txt", "-o", str(tmp_path), "--threads", "1"]
    sample = (ROOT / "examples" / "sample.flac").read_bytes()
    subprocess.run([*command, "-"], input=sample, cwd=ROOT, check=True, timeout=100, capture_output=True)
    subprocess.run([*command, "examples/sample.flac"], cwd=ROOT, check=True, timeout=100, capture_output=True)
    assert (tmp_path / "-.txt").read_text() == (tmp_path / "sample.txt").read_text() != ""
