"""Small random checkpoints of language models in the form of the published ones, with their tokenizers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SENTENCES = [
    "the dog eats food and the cat plays",
    "a man loves the old film very much",
    "rain and sun make a happy day",
    "der hund frisst und die katze spielt",
    "ein mann liebt den alten film sehr",
    "regen und sonne machen einen guten tag",
]
MERGES = ["t h", "th e", "Ġ the", "o g", "d og", "Ġ dog", "a n", "an d", "Ġ and", "i n"]


def seeded(build: Any) -> Any:
    """What `build()` makes with the same random numbers each time, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def write_config(folder: Path, config: Any, **values: Any) -> None:
    """config.json as save_pretrained writes it, without what this version of the library adds."""
    content = {key: value for key, value in config.to_dict().items() if value is not None}
    (folder / "config.json").write_text(json.dumps({**content, **values}))


def write_gpt2(folder: Path, **sizes: Any) -> Any:
    """As openai-community/gpt2: model.safetensors of the bare decoder with its masks, vocab.json, merges.txt."""
    import transformers

    vocabulary = write_byte_pairs(folder)
    values = {"vocab_size": vocabulary, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2}
    ends = {"bos_token_id": vocabulary - 1, "eos_token_id": vocabulary - 1}
    config = transformers.GPT2Config(**{**values, **ends, **sizes})
    library = seeded(lambda: transformers.GPT2LMHeadModel(config))
    with torch.no_grad():  # so that logits differ enough to generate several words
        for parameter in library.parameters():
            parameter.mul_(4)
    state = {name.removeprefix("transformer."): tensor for name, tensor in library.state_dict().items()}
    state = {name: tensor.clone().contiguous() for name, tensor in state.items() if name != "lm_head.weight"}
    for layer in range(config.n_layer):
        state[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_config(folder, config)
    return library


def write_byte_pairs(folder: Path) -> int:
    """vocab.json and merges.txt of a small GPT-2; returns the size of the vocabulary."""
    from tokenizers import pre_tokenizers

    names = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    names.append("<|endoftext|>")
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    return len(names)


def write_t5(folder: Path, *, tied: bool = True, **sizes: Any) -> Any:
    """As google-t5/t5-small (or, untied, google/flan-t5-small): model.safetensors and tokenizer.json."""
    import transformers

    vocabulary = write_unigrams(folder)
    values = {"vocab_size": vocabulary + 28, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    kind = {"feed_forward_proj": "relu" if tied else "gated-gelu", "tie_word_embeddings": tied}
    config = transformers.T5Config(**{**values, "decoder_start_token_id": 0, **kind, **sizes})
    library = seeded(lambda: transformers.T5ForConditionalGeneration(config))
    with torch.no_grad():  # so that answers depend on the text
        for name, parameter in library.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.1 if name == "shared.weight" else 16 if "EncDecAttention" in name else 4)
    state = {name: tensor.clone().contiguous() for name, tensor in library.state_dict().items()}
    if tied:
        state = {name: tensor for name, tensor in state.items() if "embed_tokens" not in name and "lm_head" not in name}
    else:
        state["lm_head.weight"] = torch.randn(state["lm_head.weight"].shape, generator=torch.Generator().manual_seed(1))
        library.lm_head.weight = torch.nn.Parameter(state["lm_head.weight"].clone())
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_config(folder, config, tie_word_embeddings=tied)
    if tied:
        content = json.loads((folder / "config.json").read_text())
        del content["tie_word_embeddings"], content["scale_decoder_outputs"]  # as in the files of 2020
        (folder / "config.json").write_text(json.dumps(content))
    return library


def write_unigrams(folder: Path) -> int:
    """tokenizer.json of a small T5; returns the size of the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted({letter for sentence in SENTENCES for letter in sentence if letter != " "})
    pieces = ["▁", *letters, "▁the", "▁and", "▁dog", "▁cat", "▁man", "▁film"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -1.0 - number / 10) for number, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return tokenizer.get_vocab_size()


def write_marian(folder: Path, *, positions: bool = True, **sizes: Any) -> Any:
    """As Helsinki-NLP/opus-mt-en-de: pytorch_model.bin, source.spm, target.spm, vocab.json."""
    import transformers

    vocabulary = write_pieces(folder)
    tokens = {"pad_token_id": vocabulary - 1, "decoder_start_token_id": vocabulary - 1, "eos_token_id": 0}
    values = {"vocab_size": vocabulary, "d_model": 16, "max_position_embeddings": 64, "scale_embedding": True}
    values |= {f"{part}_{what}": count for part in ("encoder", "decoder") for what, count in _LAYERS.items()}
    config = transformers.MarianConfig(**{**values, **tokens, "activation_function": "swish", **sizes})
    library = seeded(lambda: transformers.MarianMTModel(config))
    with torch.no_grad():
        library.final_logits_bias.copy_(torch.linspace(-0.1, 0.1, vocabulary))
        for name, parameter in library.named_parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.mul_(50 if name == "model.shared.weight" else 40 if "encoder_attn" in name else 10)
    kept = [name for name in library.state_dict() if positions or "embed_positions" not in name]
    torch.save(
        {name: library.state_dict()[name] for name in kept if "lm_head" not in name}, folder / "pytorch_model.bin"
    )
    write_config(folder, config, num_beams=6, bad_words_ids=[[vocabulary - 1]])
    return library


_LAYERS = {"layers": 2, "attention_heads": 2, "ffn_dim": 32}


def write_pieces(folder: Path) -> int:
    """Two SentencePiece models and the vocabulary that they share; returns its size."""
    import sentencepiece

    names = ["</s>", "<unk>"]
    for file, sentences in (("source.spm", SENTENCES[:3]), ("target.spm", SENTENCES[3:])):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences * 4),
            model_writer=model,
            vocab_size=40,
            hard_vocab_limit=False,
            minloglevel=2,
            num_threads=1,
        )
        (folder / file).write_bytes(model.getvalue())
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        names += [piece for piece in map(pieces.id_to_piece, range(pieces.vocab_size())) if piece != "<s>"]
    names = [*dict.fromkeys(names), ">>deu<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    return len(names)
