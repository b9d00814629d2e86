"""``python -m training``: from nothing to a checkpoint, and what it is worth.

bank      speak the phrases that training is made of (needs Debian's libespeak-ng1, flite)
train     train from nothing, or from a published checkpoint, and export
average   make one checkpoint of several that began at the same one
bias      make a checkpoint say less, or more
eval      examine checkpoints through the service (needs Debian's festival and voices too)
samples   make the sample utterances and the words to expect, for a checkpoint that ships
finetune  adapt a checkpoint of any size to (audio, words with times)
"""

import argparse
import math
import sys
import time
from dataclasses import fields
from itertools import chain
from pathlib import Path

import torch

from shared.errors import AsrError
from training import words
from training.average import average
from training.bank import Bank, synthesise, write_bank
from training.bias import bias_padding
from training.espeak import SynthesisError
from training.evaluate import Examination, examine
from training.finetune import FineTuning, fine_tune
from training.foreign_recordings import foreign_recordings
from training.kokoro import natural_phrases
from training.manifest import phrases_of, read_manifest
from training.people import People
from training.pronunciation import Pronunciations
from training.run import Run, train
from training.samples import write_samples


def main() -> None:
    """Run one command."""
    args = _parser().parse_args()
    try:
        args.run(args)
    except (AsrError, SynthesisError) as error:
        sys.exit(f"training: {error}")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        message = f"{text!r} is no whole number of at least 1"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _above_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        message = f"{text!r} is no number above 0"
        raise argparse.ArgumentTypeError(message)
    return number


def _finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        message = f"{text!r} is no finite number"
        raise argparse.ArgumentTypeError(message)
    return number


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        message = f"{text!r} is no number from 0 to 1"
        raise argparse.ArgumentTypeError(message)
    return share


def _part(text: str) -> tuple[float, Path]:
    weight, _, folder = text.partition("=")
    try:
        return float(weight), Path(folder)
    except ValueError:
        message = f"{text!r} is not a weight, =, and a checkpoint's folder, like 0.5=build/demo"
        raise argparse.ArgumentTypeError(message) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    _bank_arguments(commands.add_parser("bank", help="speak the phrases"))
    _train_arguments(commands.add_parser("train", help="train and export"))
    mean = commands.add_parser("average", help="make one checkpoint of several")
    mean.add_argument("parts", nargs="+", metavar="WEIGHT=FOLDER", type=_part, help="weights together 1")
    mean.add_argument("--out", type=Path, required=True)
    mean.set_defaults(run=lambda args: average(args.parts, args.out))
    bias = commands.add_parser("bias", help="make a checkpoint say less, or more")
    bias.add_argument("config", type=Path, help="TOML of the checkpoint")
    bias.add_argument("bias", type=_finite, help="what is added to padding's score: above 0 for fewer words")
    bias.add_argument("--bank", type=Path, required=True)
    bias.add_argument("--out", type=Path, required=True)
    bias.set_defaults(run=lambda args: bias_padding(args.config, Bank(args.bank), args.bias, args.out, say))
    evaluate = commands.add_parser("eval", help="examine checkpoints")
    evaluate.add_argument("checkpoints", nargs="+", metavar="NAME=TOML")
    evaluate.add_argument("--out", type=Path, required=True)
    evaluate.add_argument("--recordings", type=_count, default=24, help="of ten seconds in each set")
    evaluate.add_argument("--seed", type=int, default=4242)
    evaluate.add_argument("--people", type=Path, help="folder of recorded words: two more sets")
    evaluate.add_argument("--kokoro", type=Path, help="folder of Kokoro-82M: two more sets, and minutes to speak them")
    evaluate.add_argument("--only", default="", help="groups whose name contains this")
    evaluate.set_defaults(run=_eval)
    samples = commands.add_parser("samples", help="make the sample utterances")
    samples.add_argument("config", type=Path, help="TOML of the checkpoint")
    samples.add_argument("--out", type=Path, required=True)
    samples.add_argument("--seed", type=int, default=77)
    samples.set_defaults(run=lambda args: write_samples(args.config, args.out, args.seed))
    tune = commands.add_parser("finetune", help="adapt a checkpoint")
    tune.add_argument("config", type=Path, help="TOML of the checkpoint")
    tune.add_argument("manifest", type=Path, help='JSON lines: {"audio": FILE, "words": [["hello", 0.52, 0.91], ...]}')
    tune.add_argument("--out", type=Path, required=True)
    tune.add_argument("--steps", type=_count, default=1000)
    tune.add_argument("--batch", type=_count, default=4)
    tune.add_argument("--rate", type=float, default=1e-5)
    tune.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    tune.set_defaults(run=_finetune)
    return parser


def _bank_arguments(bank: argparse.ArgumentParser) -> None:
    bank.add_argument("--bank", type=Path, required=True)
    bank.add_argument("--phrases", type=_count, default=20_000)
    bank.add_argument("--flite-share", type=float, default=0.15, help="of synthetic phrases; slow to speak")
    bank.add_argument("--alike-share", type=float, default=0.0, help="of foreign words: almost words of the vocabulary")
    bank.add_argument("--people", type=Path, help="folder of recorded words: WORD/SPEAKER_nohash_N.wav")
    bank.add_argument("--people-share", type=float, default=0.3, help="of the phrases")
    bank.add_argument("--manifest", type=Path, help="JSON lines of other recordings, as for finetune: all are added")
    bank.add_argument("--kokoro", type=Path, help="folder of Kokoro-82M as ONNX: model.onnx, tokenizer.json, voices/")
    bank.add_argument("--kokoro-phrases", type=_count, default=1_500, help="that it speaks; a second costs a second")
    bank.add_argument("--seed", type=int, default=11)
    bank.set_defaults(run=_bank)


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the state and the checkpoint")
    parser.add_argument("--minutes", type=_above_zero, default=60.0)
    parser.add_argument("--steps", type=_count, help="instead of minutes")
    parser.add_argument("--config", type=Path, help="sizes of the model; else the checkpoint's, or demo.toml here")
    parser.add_argument(
        "--start-from",
        type=Path,
        help="TOML of a checkpoint, or a run's joint.pt; either may have fewer layers, the former fewer words",
    )
    parser.add_argument(
        "--settled", action="store_true", help="leave the encoder of --start-from as it is; the language model learns"
    )
    parser.add_argument(
        "--foreign-weight", type=_above_zero, help="of silence in foreign words, beside a word's 1; usually 1.5"
    )
    parser.add_argument(
        "--open-starts",
        action="store_true",
        help="foreign words begin with a 0 as well, and a word may be said up to three steps late",
    )
    parser.add_argument(
        "--more-wrong-codes",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="that an utterance's codes may have beside the usual 3 percent: other voices have other codes",
    )
    parser.add_argument("--peak", type=float, help="highest learning rate; 1.5e-3 from nothing, 4e-4 from a checkpoint")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=_count, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.set_defaults(run=_train)


def say(line: str) -> None:
    """Print with the time of day."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


def _bank(args: argparse.Namespace) -> None:
    def report(number: int) -> None:
        if number % 1000 == 0:
            say(f"{number} of {args.phrases} phrases")

    people = None
    if args.people:
        people = People(args.people, words.VOCABULARY, held_out=False, sounds_of=Pronunciations().sounds_of)
    phrases = synthesise(
        args.seed,
        args.phrases,
        flite_share=args.flite_share,
        people=people,
        people_share=args.people_share,
        alike_share=args.alike_share,
    )
    foreign = foreign_recordings() if people else ()
    recordings = read_manifest(args.manifest) if args.manifest else ()
    natural = natural_phrases(args.kokoro, args.kokoro_phrases, args.seed) if args.kokoro else ()
    write_bank(args.bank, chain(phrases, foreign, natural, chain.from_iterable(map(phrases_of, recordings))), report)
    say(f"{Bank(args.bank).hours:.1f} h of speech in {args.bank}")


def _train(args: argparse.Namespace) -> None:
    train(Run(**{field.name: getattr(args, field.name) for field in fields(Run)}), say)


def _eval(args: argparse.Namespace) -> None:
    checkpoints = [(name, Path(toml)) for name, _, toml in (item.partition("=") for item in args.checkpoints)]
    plan = Examination(
        checkpoints=checkpoints,
        n=args.recordings,
        seed=args.seed,
        out=args.out,
        only=args.only,
        people=args.people,
        kokoro=args.kokoro,
    )
    examine(plan, say)


def _finetune(args: argparse.Namespace) -> None:
    fine_tune(
        FineTuning(
            config=args.config,
            manifest=args.manifest,
            out=args.out,
            steps=args.steps,
            batch_size=args.batch,
            rate=args.rate,
            device=args.device,
        ),
        say,
    )


if __name__ == "__main__":
    main()
