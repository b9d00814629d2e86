"""What a gateway serves: one model behind one path, by any number of workers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModule:
    """One module, as far as a gateway has to know it."""

    name: str
    """NAME of ``[modules.NAME]``; workers say which one they serve."""
    path: str
    """Of the route."""
    lm: str
    """The model's file, for ``modules_info``."""
    audio_tokenizer: str
    """The audio tokenizer's file, for ``modules_info``."""
    silence_prefix_frames: int = 0
    """Silence that is fed before files, and for clients that ask."""
