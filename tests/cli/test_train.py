"""``whisper train``: every option has a flag, and mistakes are reported before any work."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from whisper.cli import train
from whisper.options.types import facts
from whisper.training.fit import FitOptions


def test_every_option_has_a_flag_with_its_default_and_help():
    parser = train.build_parser()
    given = vars(parser.parse_args(["m.tsv", "-o", "out"]))
    assert given == {"manifest": "m.tsv", "output": "out"} | {f.name: f.default for f in fields(FitOptions)}
    text = parser.format_help()
    for f in fields(FitOptions):
        assert f"--{f.name}" in text
        assert facts(f).help


def test_flags_are_read_in_their_types():
    parser = train.build_parser()
    flags = "--shape nano --window_seconds 2,4.5 --lora_targets query,mlp --freeze_encoder True --steps 7 --average 0.5"
    given = parser.parse_args(["m", "-o", "out", *flags.split()])
    assert given.window_seconds == (2.0, 4.5)
    assert given.lora_targets == ("query", "mlp")
    assert given.freeze_encoder is True
    assert (given.steps, given.average) == (7, 0.5)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("", "give model, to fine-tune a checkpoint, or shape"),
        ("--shape nano --model tiny", "give model, to fine-tune a checkpoint, or shape"),
        ("--shape nano --epochs 0", "epochs must be a number above 0, not 0.0"),
        ("--shape nano --p_silent 1.5", "p_silent must be a number from 0 to 1, not 1.5"),
        ("--shape nano --window_seconds 2,x", "--window_seconds: must be one or more numbers from 1 to 30, not '2,x'"),
        ("--shape nano --window_seconds 40", "window_seconds must be one or more numbers from 1 to 30, not (40.0,)"),
        ("--shape nano --augment loud", "invalid choice: 'loud'"),
        ("--shape nano --lora_rank 4", "from scratch all weights are trained"),
        ("--shape nano --patience 3", "patience has no effect without dev"),
        ("--model nano --language klingon", "Whisper does not know Klingon"),
        ("--model nano --lora_alpha 3", "lora_alpha has no effect without lora_rank"),
        ("--shape nano --stpes 3", "unrecognized arguments: --stpes"),
    ],
)
def test_wrong_arguments_are_named(flags, says, capsys):
    with pytest.raises(SystemExit) as left:
        train.main(["m.tsv", "-o", "out", *flags.split()])
    assert left.value.code == 2
    assert says in capsys.readouterr().err


def test_an_interrupt_waits_for_the_current_step(capfd):
    with train._Interrupt() as interrupt:
        with pytest.raises(KeyboardInterrupt):  # before the first step
            signal.raise_signal(signal.SIGINT)
        assert interrupt() is False
        signal.raise_signal(signal.SIGTERM)
        assert interrupt() is True
        assert "stopping after this step" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_during_a_checkpoint_it_ends_with_the_same_model(tmp_path):
    """Also after Ctrl-C; runs the command itself."""
    sample = Path(__file__).resolve().parent.parent.parent / "examples" / "sample.flac"
    (tmp_path / "m.tsv").write_text(f"file\tlanguage\ttext\n{sample}\ten\tcomputer one two three smart mirror\n")
    flags = "--shape width=64,encoder=1,decoder=1 --window_seconds 8 --batch_seconds 16 --steps 12 --save_every 1"
    command = [sys.executable, "-m", "whisper", "train", "m.tsv", *flags.split(), "--threads", "2", "--output"]

    def begin(folder: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, folder], cwd=tmp_path, stderr=subprocess.DEVNULL)

    assert begin("whole").wait(300) == 0
    for n_checkpoints in (1, 4, 7):
        process = begin("killed")
        wait_for_checkpoints(tmp_path / "killed", n_checkpoints, process)
        process.kill()
        process.wait()
    process = begin("killed")
    wait_for_checkpoints(tmp_path / "killed", 1, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) in (0, 130)  # 0: it was at the last step
    assert begin("killed").wait(300) == 0
    assert not list((tmp_path / "killed").glob("*.tmp"))
    whole, killed = ((tmp_path / name / "model.pt").read_bytes() for name in ("whole", "killed"))
    assert whole == killed


def wait_for_checkpoints(folder: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Return during the write of a file, such as a checkpoint, after about `count` of them."""
    left_over = set(folder.glob("*.tmp"))  # of a process that was killed
    seen: set[Path] = set()
    while len(seen) < count and process.poll() is None:
        seen.update(set(folder.glob("*.tmp")) - left_over)
        time.sleep(0.001)


def test_what_cannot_be_read_is_one_line(tmp_path, capsys):
    code = train.main([str(tmp_path / "none.tsv"), "-o", str(tmp_path / "out"), "--shape", "nano"])
    assert code == 1
    err = capsys.readouterr().err
    assert "none.tsv does not exist" in err
    assert "Traceback" not in err
