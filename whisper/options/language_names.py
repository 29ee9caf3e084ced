"""The languages of Whisper, and their codes, locales and names, mapped to Whisper's code.

Codes of ISO 639-1, -2 and -3, locales of BCP 47 and POSIX, names in English and in the language itself, all to the
code that is part of the checkpoints. Detects nothing, and never guesses: of what is no name of a language, only a slip
of one letter in a long English name gets a suggestion, for the nearest code by spelling is another language.

`LANGUAGES` and `ALIASES` are openai-whisper's (MIT, ``assets/LICENSE.openai-whisper``). Codes are those of ISO 639
and the retired ones that the IANA registry and Unicode's CLDR still resolve; native names are as CLDR 47 spells them.
"""

from __future__ import annotations

import re
import reprlib
import unicodedata
from functools import cache, lru_cache
from typing import Any

from ..errors import LanguageError

# fmt: off
# In the order of their tokens, which is part of the checkpoints: models with 99 languages lack the last one.
LANGUAGES = {
    "en": "english", "zh": "chinese", "de": "german", "es": "spanish", "ru": "russian", "ko": "korean",
    "fr": "french", "ja": "japanese", "pt": "portuguese", "tr": "turkish", "pl": "polish", "ca": "catalan",
    "nl": "dutch", "ar": "arabic", "sv": "swedish", "it": "italian", "id": "indonesian", "hi": "hindi",
    "fi": "finnish", "vi": "vietnamese", "he": "hebrew", "uk": "ukrainian", "el": "greek", "ms": "malay",
    "cs": "czech", "ro": "romanian", "da": "danish", "hu": "hungarian", "ta": "tamil", "no": "norwegian",
    "th": "thai", "ur": "urdu", "hr": "croatian", "bg": "bulgarian", "lt": "lithuanian", "la": "latin",
    "mi": "maori", "ml": "malayalam", "cy": "welsh", "sk": "slovak", "te": "telugu", "fa": "persian",
    "lv": "latvian", "bn": "bengali", "sr": "serbian", "az": "azerbaijani", "sl": "slovenian",
    "kn": "kannada", "et": "estonian", "mk": "macedonian", "br": "breton", "eu": "basque",
    "is": "icelandic", "hy": "armenian", "ne": "nepali", "mn": "mongolian", "bs": "bosnian", "kk": "kazakh",
    "sq": "albanian", "sw": "swahili", "gl": "galician", "mr": "marathi", "pa": "punjabi", "si": "sinhala",
    "km": "khmer", "sn": "shona", "yo": "yoruba", "so": "somali", "af": "afrikaans", "oc": "occitan",
    "ka": "georgian", "be": "belarusian", "tg": "tajik", "sd": "sindhi", "gu": "gujarati", "am": "amharic",
    "yi": "yiddish", "lo": "lao", "uz": "uzbek", "fo": "faroese", "ht": "haitian creole", "ps": "pashto",
    "tk": "turkmen", "nn": "nynorsk", "mt": "maltese", "sa": "sanskrit", "lb": "luxembourgish",
    "my": "myanmar", "bo": "tibetan", "tl": "tagalog", "mg": "malagasy", "as": "assamese", "tt": "tatar",
    "haw": "hawaiian", "ln": "lingala", "ha": "hausa", "ba": "bashkir", "jw": "javanese", "su": "sundanese",
    "yue": "cantonese",
}

ALIASES = {
    "burmese": "my", "valencian": "ca", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb",
    "pushto": "ps", "panjabi": "pa", "moldavian": "ro", "moldovan": "ro", "sinhalese": "si",
    "castilian": "es", "mandarin": "zh",
}

TO_LANGUAGE_CODE = {**{name: code for code, name in LANGUAGES.items()}, **ALIASES}

# By Whisper's code: further codes (ISO 639-2 and -3, of a macrolanguage its standard member, and retired ones) and
# further names, in English and in the language itself.
_MORE_NAMES = {
    "en": ("eng", "English"),
    "zh": ("zho chi cmn", "中文, 汉语, 漢語, 普通话, 普通話, 国语, 國語, 简体中文, Mandarin Chinese, Putonghua"),
    "de": ("deu ger", "Deutsch, Hochdeutsch, High German"),
    "es": ("spa", "español, castellano"),
    "ru": ("rus", "русский, русский язык"),
    "ko": ("kor", "한국어, 조선말"),
    "fr": ("fra fre", "français"),
    "ja": ("jpn", "日本語"),
    "pt": ("por", "português"),
    "tr": ("tur", "Türkçe"),
    "pl": ("pol", "polski, język polski"),
    "ca": ("cat", "català, valencià"),
    "nl": ("nld dut", "Nederlands, Vlaams"),
    "ar": ("ara arb arz ary arq aeb apc acm ars", "العربية, عربي"),
    "sv": ("swe", "svenska"),
    "it": ("ita", "italiano"),
    "id": ("ind in", "Bahasa Indonesia, Indonesia"),
    "hi": ("hin", "हिन्दी, हिंदी"),
    "fi": ("fin", "suomi, suomen kieli"),
    "vi": ("vie", "Tiếng Việt"),
    "he": ("heb iw", "עברית, Ivrit"),
    "uk": ("ukr", "українська, українська мова"),
    "el": ("ell gre", "Ελληνικά, Modern Greek"),
    "ms": ("msa may zsm", "Bahasa Melayu, Melayu, Bahasa Malaysia, Malaysian"),
    "cs": ("ces cze", "čeština, česky"),
    "ro": ("ron rum mo mol", "română, limba română, Rumanian"),
    "da": ("dan", "dansk"),
    "hu": ("hun", "magyar"),
    "ta": ("tam", "தமிழ்"),
    "no": ("nor nb nob", "norsk, norsk bokmål, bokmål, Norwegian Bokmål"),
    "th": ("tha", "ไทย, ภาษาไทย"),
    "ur": ("urd", "اردو"),
    "hr": ("hrv scr", "hrvatski"),
    "bg": ("bul", "български, български език"),
    "lt": ("lit", "lietuvių, lietuvių kalba"),
    "la": ("lat", "Latina, lingua Latina"),
    "mi": ("mri mao", "te reo Māori"),
    "ml": ("mal", "മലയാളം"),
    "cy": ("cym wel", "Cymraeg"),
    "sk": ("slk slo", "slovenčina, slovensky"),
    "te": ("tel", "తెలుగు"),
    "fa": ("fas per pes prs", "فارسی, دری, Farsi, Dari, Iranian Persian"),
    "lv": ("lav lvs", "latviešu, latviešu valoda"),
    "bn": ("ben", "বাংলা, Bangla"),
    "sr": ("srp scc sh hbs", "српски, srpski, Serbo-Croatian, Montenegrin, cnr"),
    "az": ("aze azj", "azərbaycan, azərbaycan dili, azərbaycanca, Azeri"),
    "sl": ("slv", "slovenščina, Slovene"),
    "kn": ("kan", "ಕನ್ನಡ"),
    "et": ("est ekk", "eesti, eesti keel"),
    "mk": ("mkd mac", "македонски"),
    "br": ("bre", "brezhoneg"),
    "eu": ("eus baq", "euskara, euskera"),
    "is": ("isl ice", "íslenska"),
    "hy": ("hye arm", "հայերեն"),
    "ne": ("nep npi", "नेपाली"),
    "mn": ("mon khk", "монгол, монгол хэл"),
    "bs": ("bos", "bosanski"),
    "kk": ("kaz", "қазақ тілі, қазақша"),
    "sq": ("sqi alb als", "shqip"),
    "sw": ("swa swh", "Kiswahili"),
    "gl": ("glg", "galego"),
    "mr": ("mar", "मराठी"),
    "pa": ("pan", "ਪੰਜਾਬੀ"),
    "si": ("sin", "සිංහල, Singhalese"),
    "km": ("khm", "ខ្មែរ, ភាសាខ្មែរ, Cambodian, Central Khmer"),
    "sn": ("sna", "chiShona"),
    "yo": ("yor", "Èdè Yorùbá"),
    "so": ("som", "Soomaali, af Soomaali"),
    "af": ("afr", "Afrikaans"),
    "oc": ("oci", "occitan"),
    "ka": ("kat geo", "ქართული"),
    "be": ("bel", "беларуская, беларуская мова, Belorussian, Byelorussian"),
    "tg": ("tgk", "тоҷикӣ"),
    "sd": ("snd", "سنڌي"),
    "gu": ("guj", "ગુજરાતી"),
    "am": ("amh", "አማርኛ"),
    "yi": ("yid ydd ji", "ייִדיש"),
    "lo": ("lao", "ລາວ, ພາສາລາວ, Laotian"),
    "uz": ("uzb uzn", "o‘zbek, oʻzbekcha"),
    "fo": ("fao", "føroyskt, Faeroese"),
    "ht": ("hat", "Kreyòl Ayisyen"),
    "ps": ("pus pbt", "پښتو"),
    "tk": ("tuk", "türkmen, türkmen dili"),
    "nn": ("nno no-nyn", "norsk nynorsk, Norwegian Nynorsk"),
    "mt": ("mlt", "Malti"),
    "sa": ("san", "संस्कृतम्, संस्कृत भाषा"),
    "lb": ("ltz", "Lëtzebuergesch"),
    "my": ("mya bur", "မြန်မာ, ဗမာ"),
    "bo": ("bod tib", "བོད་སྐད་"),
    "tl": ("tgl fil", "Filipino, Pilipino"),
    "mg": ("mlg plt", "Malagasy"),
    "as": ("asm", "অসমীয়া"),
    "tt": ("tat", "татар, татарча"),
    "haw": ("haw", "ʻŌlelo Hawaiʻi"),
    "ln": ("lin", "lingála"),
    "ha": ("hau", "Hausa"),
    "ba": ("bak", "башҡорт, башҡорт теле"),
    "jw": ("jv jav", "Basa Jawa, Jawa"),
    "su": ("sun", "Basa Sunda"),
    "yue": ("yue", "粵語, 粤语, 廣東話, 广东话, Yue, Yue Chinese"),
}

# That exist, and that Whisper has no token for: codes and names, so that a message can say so.
_UNKNOWN_TO_WHISPER = """
aa aar Afar; ab abk Abkhazian; ae ave Avestan; ak aka Akan; an arg Aragonese; av ava Avaric; ay aym Aymara;
bh bih Bihari; bi bis Bislama; bm bam Bambara; ce che Chechen; ch cha Chamorro; co cos Corsican; cr cre Cree;
cu chu Church Slavonic; cv chv Chuvash; dv div Divehi; dz dzo Dzongkha; ee ewe Ewe; eo epo Esperanto; ff ful Fula;
fj fij Fijian; fy fry Frisian; ga gle Irish; gd gla Scottish Gaelic; gn grn Guarani; gv glv Manx; ho hmo Hiri Motu;
hz her Herero; ia ina Interlingua; ie ile Interlingue; ig ibo Igbo; ii iii Sichuan Yi; ik ipk Inupiaq; io ido Ido;
iu iku Inuktitut; kg kon Kongo; ki kik Kikuyu; kj kua Kuanyama; kl kal Greenlandic; kr kau Kanuri; ks kas Kashmiri;
ku kur Kurdish; kv kom Komi; kw cor Cornish; ky kir Kyrgyz; lg lug Ganda; li lim Limburgish; lu lub Luba-Katanga;
mh mah Marshallese; na nau Nauru; nd nde North Ndebele; ng ndo Ndonga; nr nbl South Ndebele; nv nav Navajo;
ny nya Chichewa; oj oji Ojibwa; om orm Oromo; or ori Odia; os oss Ossetian; pi pli Pali; qu que Quechua;
rm roh Romansh; rn run Rundi; rw kin Kinyarwanda; sc srd Sardinian; se sme Northern Sami; sg sag Sango; sm smo Samoan;
ss ssw Swati; st sot Sotho; ti tir Tigrinya; tn tsn Tswana; to ton Tongan; ts tso Tsonga; tw twi Twi; ty tah Tahitian;
ug uig Uyghur; ve ven Venda; vo vol Volapük; wa wln Walloon; wo wol Wolof; xh xho Xhosa; za zha Zhuang; zu zul Zulu;
ang Old English; arc Aramaic; ast Asturian; bal Baluchi; ban Balinese; bar Bavarian; bho Bhojpuri; ceb Cebuano;
chr Cherokee; ckb Central Kurdish; cop Coptic; crh Crimean Tatar; csb Kashubian; doi Dogri; dsb Lower Sorbian;
fon Fon; fur Friulian; gag Gagauz; gan Gan Chinese; grc Ancient Greek; gsw Swiss German; hak Hakka; hil Hiligaynon;
hmn Hmong; hsb Upper Sorbian; hsn Xiang Chinese; ilo Iloko; jbo Lojban; kab Kabyle; kha Khasi; kmr Northern Kurdish;
kok Konkani; krl Karelian; lad Ladino; lij Ligurian; lld Ladin; lmo Lombard; ltg Latgalian; lus Mizo; mai Maithili;
mni Manipuri; mos Mossi; myv Erzya; nan Min Nan Chinese; nap Neapolitan; nds Low German; new Newari;
nso Northern Sotho; pap Papiamento; pcm Nigerian Pidgin; pms Piedmontese; prg Prussian; rom Romany; rup Aromanian;
sah Yakut; sat Santali; scl Shina; scn Sicilian; sco Scots; sgn Sign Languages; shn Shan; smn Inari Sami; sus Susu;
syr Syriac; szl Silesian; tet Tetum; tlh Klingon; tok Toki Pona; tpi Tok Pisin; tum Tumbuka; tyv Tuvan; udm Udmurt;
vec Venetian; vep Veps; vro Võro; war Waray; wuu Wu Chinese; xal Kalmyk; yrl Nheengatu; zgh Tamazight;
mul Multiple Languages; mis Uncoded Languages; zxx No Linguistic Content
"""
# fmt: on

AUTOMATIC = frozenset({"", "auto", "automatic", "autodetect", "auto detect", "detect", "none", "und"})

# Of a macrolanguage, the member that may be named behind it is meant: zh-yue, Chinese (Cantonese), no-nn
_MEMBERS = {"zh": ("yue",), "no": ("nn",)}
# What may stand before a name and tells the country or the script: American English
_ADJECTIVES = frozenset(
    {
        "american", "australian", "austrian", "brazilian", "british", "canadian", "congo", "european", "indian",
        "latin", "mexican", "modern", "simplified", "standard", "swiss", "traditional",
    }
)  # fmt: skip
_SHORTEST_SUGGESTED = 6  # letters; of shorter names too many are one letter apart


def code_of(name: object) -> str | None:
    """Return Whisper's code of a language; None where it is to be detected.

    Parameters
    ----------
    name
        Whisper's code; a code of ISO 639-1, -2 or -3 (``deu``, ``ger``); a locale (``pt-BR``, ``zh_Hant_TW``,
        ``en_US.UTF-8``); or a name, in English (``Farsi``, ``English (US)``) or its own (``français``). Letter case,
        accents and white space around it do not matter. None, empty text and ``auto`` ask for detection.

    Raises
    ------
    LanguageError
        It is none of these, or a language that Whisper does not know. (A ValueError.)
    """
    if name is None:
        return None
    if not isinstance(name, str):
        raise LanguageError(f"a language is the text of a code or a name, not {reprlib.repr(name)}")
    return _code_of(str(name))


def three_letters(code: str) -> str:
    """Return the code of ISO 639-2 or -3 for one of Whisper's codes; empty for what is none of them."""
    return next((more for more in _MORE_NAMES.get(code, ("",))[0].split() if len(more) == 3), "")


def settled(name: Any) -> Any:
    """Return what is kept of an option: None for detection; a name that openai-whisper takes as it is; else the code.

    openai-whisper gives its own names back in the result as they were given. What is no text is left to others.
    """
    if not isinstance(name, str):
        return name
    code, lowered = code_of(name), name.lower()
    return name if code is not None and (lowered in LANGUAGES or lowered in TO_LANGUAGE_CODE) else code


@lru_cache(1024)
def _code_of(name: str) -> str | None:
    lowered = name.lower()
    if lowered in LANGUAGES:
        return lowered
    if lowered in TO_LANGUAGE_CODE:
        return TO_LANGUAGE_CODE[lowered]
    key = _key(name)
    if key in AUTOMATIC:
        return None
    code = _named(key) or _qualified(name) or _locale(name)
    if code is None:
        raise _unknown(name)
    return code


def _key(name: str) -> str:
    """Return a name without accents, in one letter case, its words parted by single spaces."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if unicodedata.category(c) != "Mn")
    return " ".join(re.split(r"[\s_-]+", plain.casefold().strip()))


@cache
def _names() -> dict[str, str]:
    """Every code and name that Whisper knows the language of, by `_key`."""
    found = {_key(name): code for name, code in TO_LANGUAGE_CODE.items()}
    for code, (codes, names) in _MORE_NAMES.items():
        for name in (code, *codes.split(), *names.split(",")):
            found[_key(name)] = code
    return found


@cache
def _other_names() -> dict[str, str]:
    """The names of languages that Whisper does not know, by the `_key` of their codes and names."""
    found = {}
    for entry in _UNKNOWN_TO_WHISPER.split(";"):
        words = entry.split()
        n = next(i for i, word in enumerate(words) if not word.islower())
        name = " ".join(words[n:])
        found.update(dict.fromkeys([*words[:n], _key(name)], name))
    return found


def _named(key: str) -> str | None:
    """Return the code of a name, with or without the word "language", and with adjectives such as "American"."""
    words = key.split()
    if len(words) > 1 and words[-1] == "language":
        words.pop()
    if " ".join(words) in _other_names():
        return None
    while words[:-1]:
        if (code := _names().get(" ".join(words))) is not None:
            return code
        if words[0] not in _ADJECTIVES:
            return None
        del words[0]
    return _names().get("".join(words))


def _qualified(name: str) -> str | None:
    """Read ``English (US)``, ``Chinese, Cantonese`` and ISO's ``Spanish; Castilian``, and no list of languages."""
    base, *more = (_key(part) for part in re.split(r"[(（;,/]", name.rstrip(" )）")))
    code = _named(base) if more and base else None
    if code is None:
        return None
    is_list = not re.search("[(（]", name)  # in parentheses, two letters are a country, and Latin is a script
    parts = [part for part in more if is_list or (len(part) > 3 and part != "latin")]
    others = {_names().get(part, code) for part in parts} - {code}
    return _member(code, parts) if others <= set(_MEMBERS.get(code, ())) else None


def _locale(name: str) -> str | None:
    """Read ``pt-BR``, ``zh_Hant_TW``, ``en_US.UTF-8`` and ``zh-cmn``; what stands before the region may be a name."""
    base, *more = re.split("[-_]", re.split("[.@]", name.strip().lower())[0])
    if not re.fullmatch("[a-z]{2,}", base) or not all(re.fullmatch("[a-z0-9]{1,8}", part) for part in more):
        return None
    code = None if base in _other_names() else _names().get(base)
    if code is None or (code in _MEMBERS and any(part in _other_names() for part in more if len(part) == 3)):
        return None  # zh-nan is not what is meant by zh
    return _member(code, more)


def _member(code: str, more: list[str]) -> str:
    """Return the member of a macrolanguage that is named behind it, if one is; else the language itself."""
    named = (_names().get(part) for part in more)
    return next((member for member in named if member is not None and member in _MEMBERS.get(code, ())), code)


# ---------------------------------------------------------------------------------------------------------
# What is no name
# ---------------------------------------------------------------------------------------------------------


def _unknown(name: str) -> LanguageError:
    what = f"Unsupported language: {reprlib.repr(name)}"
    parts = [_key(name), *re.split("[-_]", name.strip().lower())]
    other = next((_other_names()[part] for part in parts if part in _other_names()), None)
    if other is not None:
        return LanguageError(f"{what}: Whisper does not know {other}; tokenizer.LANGUAGES lists what it knows")
    meant = _misspelled(_key(name))
    if meant is not None:
        return LanguageError(f"{what}; did you mean {meant!r}?")
    return LanguageError(
        f"{what}; give its code of ISO 639, a locale or its full name (tokenizer.LANGUAGES lists them), or 'auto' to "
        "detect it"
    )


def _misspelled(key: str) -> str | None:
    """Return the one long English name that is a single slip, not of its first letter, away from `key`, or None."""
    if len(key) < _SHORTEST_SUGGESTED:
        return None
    known = [name for name in TO_LANGUAGE_CODE if len(name) >= _SHORTEST_SUGGESTED]
    near = [name for name in known if name[0] == key[0] and _one_slip(key, name)]
    return near[0] if len(near) == 1 else None


def _one_slip(a: str, b: str) -> bool:
    """Whether a letter too many, too few or wrong, or two that changed places, make one word of the other."""
    if len(a) > len(b):
        a, b = b, a
    first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    rest_a, rest_b = a[first:], b[first:]
    if len(a) < len(b):
        return rest_a == rest_b[1:]
    return rest_a[1:] == rest_b[1:] or (rest_a[1::-1] == rest_b[:2] and rest_a[2:] == rest_b[2:])
