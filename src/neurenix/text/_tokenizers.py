"""The three forms in which tokenizers are published, opened with the `tokenizers` library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DamagedFileError, WeightsNotFoundError
from ..packages import require
from ..storage import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
_END_OF_TEXT = "<|endoftext|>"  # GPT-2's only special token
_PAD_TOKENS = ("[PAD]", "<pad>", _END_OF_TEXT, "</s>")  # the last two end a text; the mask makes them harmless
_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`: tokenizer.json, else vocab.txt, else vocab.json with merges.txt.

    Raises WeightsNotFoundError when none of them is there, DamagedFileError when the file cannot be parsed.
    """
    require("tokenizers", purpose="reading texts")
    readers = ((TOKENIZER_FILE, _read_whole), ("vocab.txt", _word_pieces), ("vocab.json", _byte_pairs))
    for name, read in readers:
        if (folder / name).is_file():
            try:
                tokenizer = read(folder)
            except (WeightsNotFoundError, DamagedFileError):
                raise
            except Exception as error:  # the library raises plain Exception for whatever it cannot parse
                raise DamagedFileError(f"{folder / name} is not a readable tokenizer ({error}).") from error
            tokenizer.no_padding()
            return tokenizer
    raise WeightsNotFoundError(
        f"no tokenizer in {folder}: sought tokenizer.json, vocab.txt, or vocab.json with merges.txt. "
        "Put the files that were published with the weights there."
    )


def padding_token(tokenizer: Tokenizer, folder: Path) -> tuple[str, int]:
    """(token, id) that fills sequences up: as the files say, else the usual ones that the vocabulary has."""
    stated = [_token(_settings(folder, name).get("pad_token")) for name in _SETTINGS]
    for token in (*stated, *_PAD_TOKENS):
        number = tokenizer.token_to_id(token) if token else None
        if token and number is not None:
            return token, int(number)
    return str(tokenizer.id_to_token(0)), 0  # masked out wherever it stands


_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")


def _read_whole(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / TOKENIZER_FILE))


def _word_pieces(folder: Path) -> Tokenizer:
    """BERT's WordPiece; lower case unless tokenizer_config.json says do_lower_case false."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    words = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    vocabulary = {word.rstrip("\r"): number for number, word in enumerate(words)}
    missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]
    if missing:
        raise DamagedFileError(f"{folder / 'vocab.txt'} has no {', '.join(missing)}, so it is no WordPiece vocabulary.")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    lower = bool(_settings(folder, "tokenizer_config.json").get("do_lower_case", True))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in vocabulary])
    return tokenizer


def _byte_pairs(folder: Path) -> Tokenizer:
    """Byte-level BPE, between <s> and </s> if the vocabulary has them (RoBERTa), else alone (GPT-2)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    if not (folder / "merges.txt").is_file():
        raise WeightsNotFoundError(f"{folder} has a vocab.json but no merges.txt; byte-level BPE needs both.")
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    numbers = {token: tokenizer.token_to_id(token) for token in _ROBERTA}
    if numbers["<s>"] is None or numbers["</s>"] is None:
        if tokenizer.token_to_id(_END_OF_TEXT) is not None:
            tokenizer.add_special_tokens([_END_OF_TEXT])
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
        return tokenizer
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", numbers["</s>"]), ("<s>", numbers["<s>"]), trim_offsets=True, add_prefix_space=False
    )
    present = [token for token, number in numbers.items() if number is not None]
    # the mask takes the space before it, so that it stands for " word"
    tokenizer.add_special_tokens([AddedToken(token, lstrip=token == "<mask>", normalized=False) for token in present])
    return tokenizer


def _settings(folder: Path, name: str) -> dict[str, Any]:
    values = read_json(folder / name) if (folder / name).is_file() else {}
    return values if isinstance(values, dict) else {}


def _token(value: Any) -> str | None:
    """A token as settings write it: a string, or an object with its content."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None
