"""Names of languages lead to Whisper's code or to an error that names no other language by its spelling."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import whisper
from tests.models import random_model
from whisper.cli.common import Parser, add_options
from whisper.errors import LanguageError
from whisper.manifests.read import resolve_language
from whisper.model import Whisper
from whisper.options import language_names
from whisper.options.language_names import LANGUAGES, TO_LANGUAGE_CODE, code_of
from whisper.options.transcription import DecodingOptions
from whisper.tokenizer import Tokenizer, get_encoding, get_tokenizer
from whisper.training.synthetic_texts import read_texts
from whisper.transcription.languages import candidates

NAMES = {
    "en": "en EN eng en-US en_US.UTF-8 en-GB-oxendict English ENGLISH english",
    "zh": "zh zh-TW zh_Hant_TW zh-cmn zho chi cmn Chinese Mandarin 中文 zh-CN",
    "yue": "yue yue-HK zh-yue zh-yue-HK Cantonese 粵語",
    "de": "de de-AT de_DE@euro deu ger German Deutsch DEUTSCH",
    "fr": "fr fr-CA fra fre French français FRANÇAIS francais",
    "pt": "pt pt-BR pt_PT por Portuguese português",
    "fa": "fa fas per Farsi Persian Dari prs fa-AF فارسی",
    "no": "no nb nb-NO nob nor no-NO Norwegian norsk bokmål",
    "nn": "nn nno nn-NO no-nyn no-nn Nynorsk",
    "he": "he iw iw-IL heb Hebrew", "id": "id in in_ID ind Indonesian", "yi": "yi ji yid",
    "tl": "tl tgl fil fil-PH Filipino Tagalog", "jw": "jw jv jav jv-ID Javanese", "ro": "ro mo mol ron rum ro-MD",
    "sr": "sr sh hbs srp sr-Latn-RS sr_RS@latin", "ar": "ar ara arb ar-EG arz", "my": "my mya bur Burmese",
    "es": "es es-419 spa español ESPANOL Castilian castellano", "el": "el ell gre el-GR Ελληνικά",
    "tr": "tr Türkçe TÜRKÇE", "ja": "ja jpn ja-JP 日本語", "ht": "ht hat haitian haitian-creole Haitian_Creole",
    "eu": "eu eus baq euskara", "ms": "ms msa may zsm", "sq": "sq alb sqi", "uk": "uk ukr uk-UA українська",
}  # fmt: skip
PHRASES = {
    " en ": "en", "English (US)": "en", "American English": "en", "English language": "en", "English (CA)": "en",
    "Brazilian Portuguese": "pt", "Latin American Spanish": "es", "Spanish; Castilian": "es", "Spanish (Latin)": "es",
    "Chinese (Cantonese)": "yue", "Chinese, Simplified": "zh", "Simplified Chinese": "zh", "Mandarin Chinese": "zh",
    "Norwegian (Nynorsk)": "nn", "Norwegian Bokmål": "no", "Tiếng Việt": "vi", "haitian creole": "ht",
}  # fmt: skip


def test_every_name_leads_to_its_code() -> None:
    for code, names in NAMES.items():
        assert {name: code_of(name) for name in names.split()} == dict.fromkeys(names.split(), code)
    assert {name: code_of(name) for name in PHRASES} == PHRASES


def test_the_table_has_each_name_once() -> None:
    assert list(language_names._MORE_NAMES) == list(LANGUAGES)
    owners: dict[str, str] = {}
    for code, (codes, names) in language_names._MORE_NAMES.items():
        for name in {language_names._key(name) for name in (code, LANGUAGES[code], *codes.split(), *names.split(","))}:
            assert owners.setdefault(name, code) == code, name
    assert not set(owners) & set(language_names._other_names())
    assert all(code_of(name) == code for name, code in owners.items())
    three_letters = {name for name in owners if len(name) == 3 and name.isascii()}
    assert len({owners[name] for name in three_letters}) == len(LANGUAGES)  # each has a code of ISO 639-3


@pytest.mark.parametrize("name", [None, "", "  ", "auto", "Auto", "AUTO ", "auto-detect", "None", "und"])
def test_what_asks_for_detection(name: str | None) -> None:
    assert code_of(name) is None
    assert DecodingOptions(language=name).language is None
    assert candidates(SimpleNamespace(num_languages=99), [name or "auto"])[:2] == ("en", "zh")  # type: ignore[arg-type]


UNKNOWN = [
    "xx", "??", "7", "deut", "autom", "Farsy", "en, fr", "fr,en", "englishfrench", "i-default", "C.UTF-8",
    "zzz", "en--US", "x" * 10_000, "Sindi", "Shima", "Tahitian", "Prussian", "Aromanian", "\x00", "ab\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN, ids=lambda name: ascii(name)[:20])
def test_a_name_of_nothing_suggests_no_other_language(name: str) -> None:
    with pytest.raises(LanguageError, match=r"^Unsupported language: ") as caught:
        code_of(name)
    said = str(caught.value).lower().partition(";")[2]
    assert "did you mean" not in said
    assert not [other for other in TO_LANGUAGE_CODE if other in said]
    assert len(said) < 200


@pytest.mark.parametrize(
    ("name", "language"),
    [("epo", "Esperanto"), ("gle", "Irish"), ("ga-IE", "Irish"), ("Kurdish", "Kurdish"), ("ceb", "Cebuano"),
     ("zh-nan", "Min Nan"), ("Swiss German", "Swiss German"), ("gsw-CH", "Swiss German"), ("KLINGON", "Klingon"),
     ("mul", "Multiple Languages")],
)  # fmt: skip
def test_a_language_that_whisper_does_not_know_is_named(name: str, language: str) -> None:
    with pytest.raises(LanguageError, match=f"Whisper does not know {language}"):
        code_of(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("frensh", "french"), ("Englisch", "english"), ("portugese", "portuguese"), ("Itlaian", "italian"),
     ("slovenien", "slovenian"), ("Rusian", "russian")],
)  # fmt: skip
def test_a_slip_in_a_long_name_is_told(name: str, meant: str) -> None:
    with pytest.raises(LanguageError, match=f"did you mean '{meant}'"):
        code_of(name)


@pytest.mark.parametrize("wrong", [7, b"en", ["en"], True, False, 1.5])
def test_what_is_no_text_is_no_language(wrong: Any) -> None:
    with pytest.raises(LanguageError, match="not"):
        code_of(wrong)


# ---------------------------------------------------------------------------------------------------------
# Everybody asks the one table
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Whisper:
    return random_model(3)


@pytest.fixture(scope="module")
def sound() -> torch.Tensor:
    return torch.randn(16000, generator=torch.Generator().manual_seed(1)) * 0.1


@pytest.mark.parametrize(("name", "kept"), [("pt-BR", "pt"), ("deu", "de"), ("Portuguese", "Portuguese"), ("EN", "EN")])
def test_the_result_has_a_code_and_the_originals_names_as_they_were(
    name: str, kept: str, model: Whisper, sound: torch.Tensor
) -> None:
    options: dict[str, Any] = {"temperature": 0.0, "fp16": False, "sample_len": 4}
    result = model.transcribe(sound, language=name, **options)
    assert result["language"] == kept
    assert result["segments"] == model.transcribe(sound, language=code_of(name), **options)["segments"]
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(sound))
    assert model.decode(mel, DecodingOptions(language=name, fp16=False, sample_len=4)).language == kept


def test_auto_detects(model: Whisper, sound: torch.Tensor) -> None:
    options: dict[str, Any] = {"temperature": 0.0, "fp16": False, "sample_len": 4}
    heard = model.transcribe(sound, **options)
    for name in ("auto", "Auto", ""):
        assert model.transcribe(sound, language=name, **options) == heard
    assert model.transcribe(sound, languages="auto", **options) == heard
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(sound))
    decoded = [model.decode(mel, DecodingOptions(language=name, fp16=False, sample_len=4)) for name in (None, "auto")]
    assert decoded[0].language == decoded[1].language == heard["language"]


def test_a_tokenizer_cannot_detect() -> None:
    with pytest.raises(LanguageError, match="a tokenizer hears nothing"):
        get_tokenizer(True, language="auto")
    assert get_tokenizer(True, language="zh-Hant-TW") is get_tokenizer(True, language="zh")
    assert Tokenizer(get_encoding("multilingual"), 99, language="deu").language == "de"


@pytest.mark.parametrize("name", ["yue", "zh-yue", "Chinese (Cantonese)"])
def test_cantonese_on_a_model_with_99_languages(name: str, model: Whisper, sound: torch.Tensor) -> None:
    with pytest.raises(LanguageError, match=r"Cantonese \('yue'\) is not among the 99 languages"):
        model.transcribe(sound, language=name)
    with pytest.raises(LanguageError, match="Cantonese"):
        candidates(model, [name])
    assert get_tokenizer(True, num_languages=100, language=name).language == "yue"


def test_lists_of_languages_take_all_names(model: Whisper) -> None:
    assert candidates(model, "en-US, deu,Farsi, en") == ("en", "de", "fa")
    with pytest.raises(LanguageError, match="'auto' names none"):
        candidates(model, ["en", "auto"])


def test_manifests_take_all_names_and_keep_their_own(tmp_path: Any) -> None:
    assert [resolve_language(name) for name in ("deu", "pt_BR", "none", "auto", "")] == ["de", "pt", "none", None, None]
    (tmp_path / "texts.tsv").write_text("sentence\tlocale\nOne two.\ten-GB\nEins zwei.\tdeu\nWhat.\tnonsense\n")
    assert read_texts(tmp_path / "texts.tsv", "eng") == ["One two."]


def test_the_command_takes_all_names(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(what="", prog="x")
    add_options(parser)
    for name in ("en-US", "EN", "english", "English", "deu", "auto", "Farsi", "None"):
        assert parser.parse_args(["--language", name]).language == name
    for name, told in {"frensh": "did you mean 'french'?", "epo": "Esperanto", "deut": "give its code"}.items():
        with pytest.raises(SystemExit):
            parser.parse_args(["--language", name])
        assert f"argument --language: Unsupported language: '{name}'" in (said := capsys.readouterr().err)
        assert told in said
