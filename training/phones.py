"""One phone alphabet for all synthesisers: the lower-case ARPAbet that flite and Festival use.

The auxiliary phone loss only helps the encoder to ignore *who* speaks if every synthesiser names its sounds alike,
so espeak-ng's mnemonics are mapped here. Sounds that have no English counterpart are UNKNOWN and carry no loss.
"""

from typing import Final

from training.listing import listed

PHONES: Final = listed(
    "pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh"
)
SILENCE: Final = 0
# The index that torch's cross entropy ignores.
UNKNOWN: Final = -100

_INDEX: Final = {name: index for index, name in enumerate(PHONES)}

_ESPEAK: Final = {
    "aa": "a aa a2 a# &",
    "ae": "{ ae",
    "ah": "V V2",
    "ao": "O O: O2 O@ o: 0 02 0# O: o@ Q",
    "aw": "aU aU@ aU:",
    "ax": "@ @2 @5 @- a# I# I2# @L",
    "ay": "aI aI@ aI3 aI2 VI",
    "b": "b",
    "ch": "tS",
    "d": "d d#",
    "dh": "D",
    "eh": "E E2 e e@ e: E@",
    "er": "3 3: IR VR @r ER",
    "ey": "eI e1 ee eI2",
    "f": "f",
    "g": "g",
    "hh": "h h2 H",
    "ih": "I I2 I# i2",
    "iy": "i i: i@ i@3 iI i#",
    "jh": "dZ",
    "k": "k",
    "l": "l l/ l/2 l^ L @l",
    "m": "m",
    "n": "n n- n^",
    "ng": "N",
    "ow": "oU oU# o o2 @U",
    "oy": "OI",
    "p": "p",
    "r": "r r- r/ R R2 *",
    "s": "s",
    "sh": "S",
    "t": "t t# t2 ?",
    "th": "T",
    "uh": "U U@",
    "uw": "u u: uU U:",
    "v": "v",
    "w": "w w#",
    "y": "j",
    "z": "z z#",
    "zh": "Z",
}
_FROM_ESPEAK: Final = {name: phone for phone, names in _ESPEAK.items() for name in names.split()}
# In General American "a" before most consonants is the vowel of "back"; espeak-ng writes it "a" as well.
_FROM_ESPEAK_A: Final = {"a": "ae", "aa": "ae", "a#": "ax", "A:": "aa", "A": "aa", "A@": "aa", "A~": "aa"}


def from_arpabet(name: str) -> int:
    """Return the index of a flite or Festival phone; `UNKNOWN` where there is none."""
    return _INDEX.get({"h#": "pau", "brth": "pau", "sil": "pau"}.get(name, name), UNKNOWN)


def from_espeak(name: str) -> int:
    """Return the index of an espeak-ng mnemonic; pauses (``_``, ``_:``) are `SILENCE`, strangers `UNKNOWN`."""
    if not name or name.startswith("_"):
        return SILENCE
    plain = name.strip("',%=|")
    phone = _FROM_ESPEAK_A.get(plain) or _FROM_ESPEAK.get(plain)
    return UNKNOWN if phone is None else _INDEX[phone]
