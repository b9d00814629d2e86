"""Checkpoints in the published layout: reading one into a network, writing one that the worker loads."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from asr_worker.model.checkpoint import fill, problems_of, read_header
from asr_worker.model.lm import LanguageModel
from asr_worker.model.mimi import MimiEncoder
from asr_worker.model.needs import LM_PREFIX, MIMI_PREFIX, lm_needs, mimi_needs
from asr_worker.model.seanet import CausalConv
from asr_worker.model.transformer import published_name
from shared.config import ModuleConfig
from shared.config_file import load_config
from shared.errors import CheckpointError
from training.bank import FIRST_WORD_ID
from training.net import Net
from training.quantise import MovingCodebooks
from training.tokenizer import write_tokenizer
from training.words import VOCABULARY

LM_FILE: Final = "lm.safetensors"
MIMI_FILE: Final = "mimi.safetensors"
TOKENIZER_FILE: Final = "tokenizer.model"
CONFIG_FILE: Final = "demo.toml"
_LAST_OF_BRANCH: Final = ("out_proj_weight", "linear_out", "linear2")


def module_of(toml: Path) -> ModuleConfig:
    """Return the only module of a configuration file."""
    return load_config(toml, {}).service.module(None)


def words_of(module: ModuleConfig) -> tuple[str, ...]:
    """Return the words that a model of this size knows: the first ones of the vocabulary."""
    return VOCABULARY[: module.model.text_out_vocab_size - FIRST_WORD_ID]


def lm_tensors(lm: LanguageModel, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Return the language model's tensors under their published names."""
    tensors = {
        "text_emb.weight": lm.text_emb,
        "out_norm.alpha": lm.out_norm.alpha,
        "text_linear.weight": lm.text_linear,
        **{f"emb.{i}.weight": table for i, table in enumerate(lm.audio_emb)},
        **{f"extra_heads.{i}.weight": head for i, head in enumerate(lm.extra_heads)},
        **_transformer(LM_PREFIX, lm.transformer),
    }
    return {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}


def mimi_tensors(mimi: MimiEncoder, codebooks: MovingCodebooks) -> dict[str, Tensor]:
    """Return the encoder half's tensors under their published names: bfloat16, the codebooks float32."""
    tensors = _transformer(MIMI_PREFIX, mimi.transformer)
    for prefix, conv in mimi.encoder.published_convs():
        assert conv.bias is not None
        tensors |= {f"{prefix}.weight": _kernel(conv), f"{prefix}.bias": conv.bias}
    tensors["downsample.conv.conv.conv.weight"] = _kernel(mimi.downsample)
    tensors["quantizer.rvq_first.input_proj.weight"] = mimi.quantizer.first_proj[:, :, None]
    tensors["quantizer.rvq_rest.input_proj.weight"] = mimi.quantizer.rest_proj[:, :, None]
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    for level in range(len(codebooks.sums)):
        half, index = ("first", 0) if level == 0 else ("rest", level - 1)
        prefix = f"quantizer.rvq_{half}.vq.layers.{index}._codebook"
        tensors[f"{prefix}.embedding_sum"] = codebooks.sums[level]
        tensors[f"{prefix}.cluster_usage"] = codebooks.usage[level]
        tensors[f"{prefix}._initialized"] = torch.ones(1)
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}


def export(net: Net, toml: Path, folder: Path) -> None:
    """Write ``toml``, both weight files and the tokenizer into ``folder``: all that a worker needs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in ((LM_FILE, lm_tensors(net.lm)), (MIMI_FILE, mimi_tensors(net.mimi, net.codebooks))):
        write_weights(tensors, folder / name)
    write_tokenizer(words_of(net.module), folder / TOKENIZER_FILE)
    shutil.copyfile(toml, folder / CONFIG_FILE)


def write_weights(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a file of weights that others may read, too; safetensors makes it its owner's."""
    save_file(tensors, path)
    path.chmod(0o644)


def read_published(net: Net, module: ModuleConfig, folder: Path, per_batch: int) -> float:
    """Fill the network from a published checkpoint of the same sizes; its text vocabulary may be smaller.

    Words that the checkpoint does not know start as the average of those it does, layers that it lacks start as
    nothing. Audio tables are kept as they are and the bridge is fitted to them.

    Args:
        net: to fill.
        module: of the checkpoint: says where its files lie in ``folder``, how many layers and words it has.
        folder: of the checkpoint.
        per_batch: latents per training batch, for the codebooks' averages.

    Returns:
        The share of the audio tables' variance that the bridge could not imitate.

    Raises:
        CheckpointError: the files do not fit; names everything.
    """
    mimi_header = read_header("audio_tokenizer_file", folder / module.audio_tokenizer_file)
    lm_header = read_header("lm_model_file", folder / module.lm_model_file)
    lm = LanguageModel(module.model, hidden=net.module.model.transformer.hidden, dtype=torch.float32)
    mimi = MimiEncoder(module.mimi, module.model.audio_codebooks)
    problems = problems_of(mimi_header, mimi_needs(mimi)) + problems_of(lm_header, lm_needs(lm))
    if problems:
        raise CheckpointError(*problems)
    fill(mimi_header, mimi_needs(mimi))
    fill(lm_header, lm_needs(lm))
    words = _widened(net.lm, lm, n_words_of(folder / module.text_tokenizer_file))
    take_over(net.lm, {**lm.state_dict(), **words})
    take_over(net.mimi, mimi.state_dict())
    net.codebooks.follow(net.mimi.quantizer, per_batch)
    net.codebooks.write(net.mimi.quantizer)
    return net.bridge_from_tables()


def n_words_of(tokenizer: Path) -> int:
    """Return how many words a word model's tokenizer has."""
    import sentencepiece  # noqa: PLC0415 - heavy, and only a resumed run needs it

    return int(sentencepiece.SentencePieceProcessor(model_file=str(tokenizer)).vocab_size()) - FIRST_WORD_ID


@torch.no_grad()
def take_over(module: nn.Module, old: Mapping[str, Tensor]) -> None:
    """Fill a module from the tensors of one that may have fewer layers: further layers change nothing at first.

    Raises:
        CheckpointError: tensors that the module has no place for; names each.
    """
    places = module.state_dict()
    problems = []
    for name, tensor in sorted(old.items()):
        if name not in places:
            problems.append(f"{name}: the network has no such tensor")
        elif tensor.shape != places[name].shape:
            problems.append(f"{name}: has shape {list(tensor.shape)}, {list(places[name].shape)} is wanted")
    if problems:
        raise CheckpointError(*problems)
    for name, tensor in places.items():
        if name in old:
            tensor.copy_(old[name])
        elif name.endswith(_LAST_OF_BRANCH):
            tensor.zero_()


@torch.no_grad()
def _widened(lm: LanguageModel, source: LanguageModel, n_words: int) -> dict[str, Tensor]:
    """Return the source's text tables with as many rows as the language model has words."""
    known = min(FIRST_WORD_ID + n_words, lm.config.text_out_vocab_size)
    n_new = lm.config.text_out_vocab_size - known
    tables = {}
    for name in ("text_emb", "text_linear"):
        old = getattr(source, name)
        words = old[FIRST_WORD_ID:known]
        new = words.mean(dim=0) + 0.3 * words.std(dim=0) * torch.randn(n_new, words.shape[1])
        # The start token is the last one of what is fed.
        tables[name] = torch.cat((old[:known], new, old[-1:] if name == "text_emb" else old[:0]))
    return tables


def _kernel(conv: CausalConv) -> Tensor:
    n_out, n_in, kernel = conv.published_shape
    return conv.weight.view(n_out, kernel, n_in).transpose(1, 2)


def _transformer(prefix: str, transformer: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{published_name(name)}": parameter for name, parameter in transformer.named_parameters()}
