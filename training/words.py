"""Which words the demo model knows, and which foreign words it must keep silent about.

Foreign words come from Debian's word list and from the short list below of everyday words, which a word list without
frequencies would drown. Each belongs to training or to evaluation for ever, by a hash of its letters. Words that
sound like a vocabulary word ("too", "right" in one accent and "write") and plain inflections ("lights") are neither.
"""

import random
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from shared.errors import ConfigError
from training.listing import listed

PROTOTYPE_WORDS: Final = listed(
    "zero one two three four five six seven eight nine yes no stop go up down left right on off hello world start help"
    " open close play pause next back please thanks music light red green blue cancel again time today weather"
)
"""The 42 words of the prototype, in the order of its text ids."""

VOCABULARY: Final = (
    *PROTOTYPE_WORDS,
    *listed("ten eleven twelve twenty hundred thousand monday tuesday wednesday thursday friday saturday sunday"),
    *listed("yellow orange purple black white morning evening tomorrow computer water louder"),
)
"""All words of the model: text id of a word = 4 + its place here."""

WORD_LIST: Final = Path("/usr/share/dict/american-english")

_EVERYDAY: Final = listed(
    "a about after all also although always am an and another any are around as ask at away bad be beautiful"
    " because been before being best better big book both boy bread bring brother build but by call came can"
    " car carry chair change child city clean cold come could country cut day did different do does dog done"
    " door drink drive each early eat end enough even ever every example eye face fact family far fast father"
    " feel few find fire first fish floor food foot form found friend from full game gave get girl give good"
    " great ground group grow had half hand happy hard has have he head hear heart her here high him his hold"
    " home horse hot hour house how hurt i idea if important in inside into is it its job just keep kind king"
    " kitchen know land language large last late laugh learn leave let letter life like line listen little live"
    " long look lost lot love low made make man many maybe me mean men milk mind money month moon more most"
    " mother mountain move much must my name near need never new news night nothing of often oil old only or"
    " order other our out over own page paper part people perhaps person picture piece place plan plant point"
    " pretty problem put question quick quite ran reach ready really remember rest rich ride river road room"
    " round run said same sat saw say school sea second see seem self send sentence set several shall she ship"
    " shop short should show side simple since sing sister sit sky sleep slow small snow so some something song"
    " soon sound speak spell spring stand star state stay step still stood store story street strong study such"
    " summer sun sure table take talk tell than that the their them then there these they thing think this"
    " those though thought through tired together told took top town travel tree true try turn under until us"
    " use very voice wait walk wall want warm was wash watch way we week well went were what when where which"
    " while who whole why wife will wind window winter wish with without woman wonder wood word work would year"
    " yet you young your"
)
_NOT_FOREIGN: Final = frozenset(
    listed(
        "to too for fore won ate wright rite write blew grean gow know noe wan ought of awf oft there their rite tue"
        " read paws pawed thyme tyme weigher whether sicks ate tenn tun teen mourning sundae wheat"
    )
)
_INFLECTIONS: Final = ("s", "es", "ed", "d", "ing", "er", "ers", "ly", "y", "ped", "ping", "per", "pers")
_CONSONANTS: Final = listed("b ch d f g h j k l m n p r s sh t th v w z st tr pl br gr")
_VOWELS: Final = listed("a e i o u ee oo ai ou ar or")


def is_held_out(word: str) -> bool:
    """Return whether a foreign word belongs to evaluation (one in five) and so never to training."""
    return zlib.crc32(word.encode()) % 5 == 0


def foreign_words(phonemes: Callable[[str], str]) -> tuple[list[str], list[str]]:
    """Return the word list's foreign words and the everyday ones.

    Args:
        phonemes: how a word sounds; words that sound like one of the vocabulary are left out.

    Raises:
        ConfigError: there is no word list here.
    """
    if not WORD_LIST.exists():
        message = (
            f"{WORD_LIST}, whose words a model must learn to keep silent about, is missing; Debian's wamerican has it"
        )
        raise ConfigError(message)
    known = {phonemes(word) for word in VOCABULARY}
    inflected = {word + end for word in VOCABULARY for end in _INFLECTIONS} | set(VOCABULARY) | _NOT_FOREIGN
    listed = WORD_LIST.read_text(encoding="utf-8").split()

    def keep(words: Sequence[str]) -> list[str]:
        plain = (w for w in words if re.fullmatch("[a-z]{1,12}", w) and w not in inflected)
        return [w for w in dict.fromkeys(plain) if phonemes(w) not in known]

    return keep(listed), keep(_EVERYDAY)


def sound_alikes(phonemes: Callable[[str], str], foreign: Sequence[str]) -> tuple[list[str], ...]:
    """Return foreign words that sound almost like a word of the vocabulary, or begin almost like one.

    "form" and "forest" for "four", "word" for "world", "top" and "stomp" for "stop": one mnemonic more, less or other,
    in the whole word or in as much of its beginning.

    Args:
        phonemes: how a word sounds, in mnemonics of about one letter each.
        foreign: words to choose from.

    Returns:
        A list for each word of the vocabulary that has any.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, known in enumerate(VOCABULARY):
        for key in _keys(_letters(phonemes(known))):
            places[key].append(place)
    lengths = {len(key) for key in places}
    found: list[list[str]] = [[] for _ in VOCABULARY]
    for word in foreign:
        heard = _letters(phonemes(word))
        # What a word of two sounds begins is too much.
        beginnings = {heard[:length] for length in lengths if length > 2} | {heard}  # noqa: PLR2004
        keys = {key for beginning in beginnings for key in _keys(beginning)}
        for place in {place for key in keys if key in places for place in places[key]}:
            found[place].append(word)
    return tuple(alike for alike in found if alike)


def _letters(mnemonics: str) -> str:
    return re.sub("[^a-zA-Z0@]", "", mnemonics)


def _keys(heard: str) -> set[str]:
    """Return what two strings share if one letter is another, or one of them has one more."""
    return {heard[:at] + "*" + heard[at + 1 :] for at in range(len(heard))} | {
        heard[:at] + "*" + heard[at:] for at in range(len(heard) + 1)
    }


def near_neighbour(rng: random.Random, known: frozenset[str] = frozenset(VOCABULARY)) -> str:
    """Spell a nonsense word that differs from a vocabulary word in one sound ("plick", "sebben")."""
    while True:
        word = rng.choice(VOCABULARY)
        at = rng.randrange(len(word))
        pool = _VOWELS if word[at] in "aeiouy" else _CONSONANTS
        changed = word[:at] + rng.choice(pool) + word[at + 1 :]
        if changed not in known and changed not in _NOT_FOREIGN and changed != word:
            return changed


def nonsense(rng: random.Random) -> str:
    """Spell a pronounceable word of one to three syllables."""
    syllables = rng.choice((1, 2, 2, 3))
    return "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(syllables)) + rng.choice(
        ("", "n", "t", "l", "s", "k", "m")
    )
