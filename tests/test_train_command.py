"""``whisper train`` from the command line: every option has a flag, and mistakes are told before any work."""

from __future__ import annotations

from dataclasses import fields

import pytest

from whisper import train_command
from whisper.training import FitOptions


def test_every_option_has_a_flag_with_its_default_and_help():
    parser = train_command.build_parser()
    given = vars(parser.parse_args(["m.tsv", "-o", "out"]))
    assert given == {"manifest": "m.tsv", "output": "out"} | {f.name: f.default for f in fields(FitOptions)}
    told = parser.format_help()
    for f in fields(FitOptions):
        assert f"--{f.name}" in told
        assert f.metadata["help"]


def test_flags_are_read_in_their_types():
    parser = train_command.build_parser()
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
        ("--shape nano --epochs 0", "epochs must be above 0, not 0.0"),
        ("--shape nano --p_silent 1.5", "p_silent must be 0 to 1, not 1.5"),
        ("--shape nano --window_seconds 2,x", "must be numbers with commas"),
        ("--shape nano --window_seconds 40", "window_seconds must be lengths of 1 to 30 s"),
        ("--shape nano --augment loud", "invalid choice: 'loud'"),
        ("--shape nano --lora_rank 4", "from scratch all must learn"),
        ("--shape nano --patience 3", "patience needs dev"),
        ("--shape nano --stpes 3", "unrecognized arguments: --stpes"),
    ],
)
def test_wrong_arguments_are_named(flags, says, capsys):
    with pytest.raises(SystemExit) as left:
        train_command.main(["m.tsv", "-o", "out", *flags.split()])
    assert left.value.code == 2
    assert says in capsys.readouterr().err


def test_what_cannot_be_read_is_one_line(tmp_path, capsys):
    code = train_command.main([str(tmp_path / "none.tsv"), "-o", str(tmp_path / "out"), "--shape", "nano"])
    assert code == 1
    err = capsys.readouterr().err
    assert "none.tsv does not exist" in err
    assert "Traceback" not in err
