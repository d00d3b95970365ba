"""Directories of tiny Llama models with a tokenizer whose tokens are words, texts for them, and the command."""

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = [f"w{number}" for number in range(64)]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def save_llama(folder, *, dtype=torch.bfloat16, shard="1GB", **sizes):
    """Save a random model of 64 words."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{"vocab_size": 64, **SIZES, **sizes})
    transformers.LlamaForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size=shard)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder):
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)


def write_text(path, words=700):
    generator = torch.Generator().manual_seed(1)
    path.write_text(" ".join(WORDS[int(i)] for i in torch.randint(0, 64, (words,), generator=generator)))
    return path


def prune_command(model, output, text, *options, windows=10, tokens=64):
    """The arguments of `masksmith prune` to 2:4."""
    cut = ["--calibration-windows", str(windows), "--calibration-tokens", str(tokens)]
    where = ["--local", "-o", str(output), "--calibration-text", str(text)]
    return ["prune", str(model), "-p", "2:4", *where, *cut, *options]
