"""Hearing whole utterances the way a server does, without the server: for progress while training."""

from dataclasses import dataclass

import numpy as np
import torch

from asr_worker.core.words import WordAssembler, WordEnded, WordSaid
from training.bank import FIRST_WORD_ID
from training.encoder import latents_of
from training.net import Net
from training.words import VOCABULARY

FRAMES_PER_S = 12.5


@dataclass(frozen=True, kw_only=True)
class HeardWord:
    """A word of a transcript, with its times."""

    text: str
    start_s: float
    stop_s: float


@torch.no_grad()
def transcribe(net: Net, pcm: np.ndarray) -> list[list[HeardWord]]:
    """Transcribe ``[B, F * 1920]`` samples, each row from a session's start and greedily."""
    codes = net.mimi.quantizer(latents_of(net.mimi, torch.from_numpy(pcm)).flatten(0, 1)).unflatten(0, (len(pcm), -1))
    config = net.module.model
    ring, active = net.lm.new_ring(len(pcm)), torch.ones(len(pcm), dtype=torch.bool)
    text = torch.full((len(pcm),), config.text_in_vocab_size - 1)
    audio = torch.full_like(codes[:, 0], config.audio_vocab_size - 1)
    said = []
    for step in range(codes.shape[1] + 1):
        scores, _ = net.lm.step(text, audio, ring, active)
        text = scores.argmax(dim=-1)
        said.append(text.numpy())
        audio = codes[:, min(step, codes.shape[1] - 1)]
    return [words_of(row, net.module.delay_frames) for row in np.stack(said, axis=1)]


def words_of(tokens: np.ndarray, delay: int) -> list[HeardWord]:
    """Apply the server's rule for words to the tokens of one session."""
    assembler = WordAssembler(lambda pieces: _spelled(pieces[0]), most_pieces=1)
    words: list[HeardWord] = []
    for step, token in enumerate(tokens, start=1):
        if step < delay:
            continue
        for event in assembler.feed(int(token), (step - delay) / FRAMES_PER_S):
            match event:
                case WordSaid(text=text, start_s=start_s):
                    words.append(HeardWord(text=text, start_s=start_s, stop_s=start_s))
                case WordEnded(stop_s=stop_s):
                    last = words.pop()
                    words.append(HeardWord(text=last.text, start_s=last.start_s, stop_s=stop_s))
    return words


def _spelled(piece: int) -> str:
    index = piece - FIRST_WORD_ID
    return VOCABULARY[index] if 0 <= index < len(VOCABULARY) else ""
