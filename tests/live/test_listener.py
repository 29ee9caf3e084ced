"""Sound cut into items: nothing lost, nothing twice, whatever the pieces in which it comes."""

from __future__ import annotations

import numpy as np
import pytest

from whisper.live.events import SpeechStarted
from whisper.live.listener import EndedItem, Listener
from whisper.live.options import LiveOptions

from .fakes import RATE, STEP, listener, loud, silent


def changes(listener: Listener, *sounds: np.ndarray, piece: int = 1600) -> list[SpeechStarted | EndedItem]:
    found = []
    sound = np.concatenate(sounds)
    for begin in range(0, len(sound), piece):
        listener.feed(sound[begin : begin + piece])
        while (change := listener.advance()) is not None:
            found.append(change)
    return found


def test_an_item_is_a_stretch_of_speech_with_padding_and_silence() -> None:
    started, ended = changes(listener(), silent(2), loud(1.5), silent(2))
    assert isinstance(started, SpeechStarted)
    assert isinstance(ended, EndedItem)
    assert 1.4 < started.at <= 1.5 + STEP / RATE
    assert ended.start == round(started.at * RATE)
    assert ended.speech_end == pytest.approx(3.5, abs=2 * STEP / RATE)
    assert ended.end / RATE == pytest.approx(4.0, abs=3 * STEP / RATE)
    assert ended.has_speech


def test_the_samples_of_an_item_are_those_that_came() -> None:
    sound = np.concatenate([silent(1), loud(1) * np.linspace(0.5, 1, RATE, dtype=np.float32), silent(1)])
    ended = changes(listener(), sound)[-1]
    assert isinstance(ended, EndedItem)
    np.testing.assert_array_equal(ended.samples, sound[ended.start : ended.end])


@pytest.mark.parametrize("piece", [1, 511, 513, 5000, 10**6])
def test_the_pieces_do_not_matter(piece: int) -> None:
    sounds = silent(0.5), loud(1), silent(0.7), loud(0.5), silent(0.8)
    if piece == 1:
        sounds = silent(0.1), loud(0.2), silent(0.6)
    expected, found = changes(listener(), *sounds), changes(listener(), *sounds, piece=piece)
    assert len(expected) == len(found) > 1
    for one, other in zip(expected, found, strict=True):
        if isinstance(one, EndedItem) and isinstance(other, EndedItem):
            assert (one.number, one.start, one.speech_end) == (other.number, other.start, other.speech_end)
            np.testing.assert_array_equal(one.samples, other.samples)
        else:
            assert one == other


def test_a_long_item_is_cut_where_it_is_quiet_and_nothing_is_lost() -> None:
    lively = listener(max_item_s=5)
    sounds = loud(4.3), silent(0.2), loud(3.5), silent(1)
    first, cut, second, last = changes(lively, *sounds)
    assert isinstance(first, SpeechStarted)
    assert isinstance(second, SpeechStarted)
    assert isinstance(cut, EndedItem)
    assert isinstance(last, EndedItem)
    assert 4.3 <= cut.end / RATE <= 4.5 + 3 * STEP / RATE
    assert cut.speech_end is None
    assert cut.end == last.start == round(second.at * RATE)
    assert (cut.number, last.number, lively.item) == (0, 1, None)
    assert last.speech_end is not None


def test_what_is_kept_in_silence_is_only_the_padding() -> None:
    waiting = listener(prefix_padding_s=0.3)
    changes(waiting, silent(30))
    assert len(waiting.samples) <= 0.45 * RATE
    assert waiting.item is None


def test_a_program_ends_items_itself() -> None:
    manual = listener(turn_detection="none")
    assert changes(manual, silent(1), loud(1), silent(3), loud(0.101)) == []
    assert manual.item == 0
    ended = manual.commit()
    assert ended is not None
    assert len(ended.samples) == round(5.101 * RATE)
    assert ended.has_speech
    assert ended.speech_end is None
    assert manual.commit() is None
    changes(manual, silent(1))
    again = manual.commit()
    assert again is not None
    assert (again.number, again.start) == (1, ended.end)


def test_a_commit_in_speech_ends_the_item_there_and_the_rest_is_another() -> None:
    vad = listener()
    changes(vad, loud(1))
    ended = vad.commit()
    assert ended is not None
    assert ended.end == RATE
    started, last = changes(vad, loud(1), silent(1))
    assert isinstance(started, SpeechStarted)
    assert isinstance(last, EndedItem)
    assert last.start == ended.end


def test_a_commit_without_speech_says_so() -> None:
    vad = listener()
    changes(vad, silent(1))
    ended = vad.commit()
    assert ended is not None
    assert not ended.has_speech


def test_clearing_forgets_sound_but_not_time() -> None:
    vad = listener()
    changes(vad, loud(1.01))
    vad.clear()
    assert vad.item is None
    assert not len(vad.samples)
    started = changes(vad, silent(1), loud(1))[0]
    assert isinstance(started, SpeechStarted)
    assert started.at == pytest.approx(2.01 + 1 - 1.5, abs=3 * STEP / RATE)
    assert started.item == 1


def test_other_options_hold_from_the_next_item_on() -> None:
    vad = listener(silence_s=0.5)
    changes(vad, loud(1))
    vad.update(LiveOptions(silence_s=2.0, language="fr"))
    ended, started = changes(vad, silent(1), loud(1), silent(1.5))
    assert isinstance(ended, EndedItem)
    assert ended.options.language is None
    assert isinstance(started, SpeechStarted)
    assert vad.options.language == "fr"
    assert vad.item == 1
    last = changes(vad, silent(1))[0]
    assert isinstance(last, EndedItem)
    assert last.options.language == "fr"


def test_speech_right_after_other_options_between_two_items_is_heard() -> None:
    vad = listener()
    changes(vad, silent(2))
    vad.update(LiveOptions(language="fr"))
    started, ended = changes(vad, loud(1), silent(1))
    assert isinstance(started, SpeechStarted)
    assert started.at == pytest.approx(1.5, abs=3 * STEP / RATE)
    assert isinstance(ended, EndedItem)
    assert ended.options.language == "fr"


def test_speech_goes_on_after_a_cut_with_other_options() -> None:
    vad = listener(max_item_s=5)
    changes(vad, loud(1))
    vad.update(LiveOptions(max_item_s=6))
    found = changes(vad, loud(4), silent(1))
    assert isinstance(found[-1], EndedItem)
    assert found[-1].speech_end is not None
