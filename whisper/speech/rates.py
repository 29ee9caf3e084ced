"""Speaking rates: limits on the text in a second of speech, each in the unit of its check.

Every limit on text by time in the package is here. The units differ because the checks see
different things: the decoder sees tokens, the audit text of any script (counted in bytes, see
`coverage.n_bytes`), forced alignment letters. Do not confuse them with `audio.TOKENS_PER_SECOND`,
the encoder's 50 positions per second.
"""

from __future__ import annotations

# Tokens of text
MAX_TEXT_TOKENS_PER_SECOND = 30.0  # the least efficient scripts take 20
# In a repetition loop, where a lower limit is safe: fast English has 8, languages with few words in
# the vocabulary about twice as many.
MAX_LOOP_TOKENS_PER_SECOND = 15

# Bytes of letters and digits in UTF-8
MAX_TEXT_BYTES_PER_SECOND = 30.0  # of a text that repeats itself
CROWDED_TEXT_BYTES_PER_SECOND = 12.0  # part of the text is probably from outside of its segment
MIN_TEXT_BYTES_PER_SECOND = 4.0  # of padded speech; slow reading has 8

# Characters
MAX_CHARACTERS_PER_SECOND = 25.0  # 400 words a minute is faster than anyone reads aloud

# Letters of a known text
MAX_LETTERS_PER_SECOND = 30.0
TYPICAL_LETTERS_PER_SECOND = 15.0
MIN_LETTERS_PER_SECOND = 2.5  # with fewer, the recording has much speech that the text lacks
