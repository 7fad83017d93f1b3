"""What a stranger can do to a checkpoint: each attack gives the files of a folder, and the name of the one to load."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tests.hostile.family_files import FAMILIES, LINK, VECTORS, Family, Files, State
from tests.hostile.pickles import CALLABLES, hostile_pickle
from tests.tensor_bundles import MAGIC, entry, index_of, masked

Case = tuple[Files, str]
BILLION = 10**9
HTML = b"<!doctype html><html><head><title>404</title></head><body>There is no such file.</body></html>\n"


def cases(canary: Path, everything: bool) -> Iterator[tuple[Family, str, Case]]:
    """Family, attack, files. everything: all attacks on all families; else some, in turn, on every other family."""
    for number, family in enumerate(FAMILIES if everything else FAMILIES[::2]):
        command = hostile_pickle(CALLABLES[number % len(CALLABLES)], f"touch {canary}", 2)
        any_file = list(_any_file(family, command))
        kept = any_file if everything else any_file[number % 4 :: 4]
        for what, case in (
            ("its own pickle", _own_pickle(family, command)),
            *kept,
            *_of_whole_files(family, number, everything),
            *list(_configs(family))[0 if everything else number % 2 :: 1 if everything else 2],
            *OWN.get(family.model, lambda family: ())(family),
        ):
            yield family, what, case


def _of_whole_files(family: Family, number: int, everything: bool) -> list[tuple[str, Case]]:
    """All, or of each family half of them, of the ones with large files a fifth, another part each time."""
    if not family.small:
        return []
    few = len(family.files[family.file]) > 3 << 20 and not everything
    parts = 1 if everything else 5 if few else 2
    spoilt = list(_states(family))[number % parts :: parts] if family.state else []
    whole = [(what, ({**family.files, family.file: family.packed(state)}, family.file)) for what, state in spoilt]
    return [*list(_cut(family))[1 if few else 0 : 2 if few else None], *whole]


def _own_pickle(family: Family, command: bytes) -> Case:
    """A call in the place where the family's own files have their tensors."""
    key = b"X" + struct.pack("<I", len(family.wrapper or "weight")) + (family.wrapper or "weight").encode()
    inner = b"\x80\x02}" + key + b"}X\x01\x00\x00\x00a" + command[2:-1] + b"ss."
    if family.legacy or not family.is_torch:
        start = b"".join(pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {}))
        return {family.file: start + inner}, family.file
    return {family.file: _zip({"archive/data.pkl": inner, "archive/version": b"3\n"})}, family.file


def _any_file(family: Family, command: bytes) -> Iterator[tuple[str, Case]]:
    """What needs no tensors. The names are those that a folder is searched for, and the family's own."""
    name = family.file
    outside = {"../canary": b"x", "/tmp/canary": b"x", "archive/data.pkl": command, "archive/version": b"3\n"}
    alone: dict[str, Files] = {
        "nothing": {name: b""},
        "a web page": {name: HTML},
        "a bare pickle": {name: command},
        "an archive with outside paths": {name: _zip(outside)},
        "a compressed bomb": {name: _zip({"archive/data.pkl": command, "archive/data/0": bytes(64 << 20)}, True)},
        "a tar with links": {name: _tar(command)},
    }
    yield from ((what, (files, name)) for what, files in alone.items())
    yield "a folder in place of the file", ({f"{name}/inside": b"x"}, name)
    yield "a folder of a folder", ({"model.safetensors/inside": b"x"}, ".")
    yield "a pickle under another name", ({"model.safetensors": command}, ".")
    yield "a safetensors of absurd shape", ({"a.safetensors": _absurd_header([1 << 40, 1 << 40])}, "a.safetensors")
    yield "rows without numbers", ({"a.safetensors": _absurd_header([BILLION, 0], 0)}, "a.safetensors")
    yield "a link to elsewhere", ({"model.safetensors": LINK + b"/etc/passwd"}, ".")
    yield "a link to itself", ({"pytorch_model.bin": LINK + b"pytorch_model.bin"}, "pytorch_model.bin")
    yield "no file at all", ({"readme.txt": b"x"}, "pytorch_model.bin")


def _cut(family: Family) -> Iterator[tuple[str, Case]]:
    if not family.small:
        return
    content = family.files[family.file]
    if family.model == "glove":
        content = content[:-1]  # cut at a line's end, the form without sizes is another whole file
    for percent in (7, 55, 99):
        cut = content[: max(1, len(content) * percent // 100)]
        yield f"cut at {percent} %", ({**family.files, family.file: cut}, family.file)


def _states(family: Family) -> Iterator[tuple[str, State]]:
    """Whole files, of which names and shapes do not belong together."""
    state = family.state
    first = max(state, key=lambda name: state[name].numel())
    wide = [name for name, x in state.items() if x.ndim > 1]
    changed: dict[str, State] = {
        "names exchanged": _exchanged(state),
        "half of them narrower": {name: x[:1].clone() if name in wide[::2] else x for name, x in state.items()},
        "names of another family": {f"tower.stage{number}.w": x for number, x in enumerate(state.values())},
        "numbers without shapes": {name: torch.zeros((), dtype=torch.uint8) for name in state},
        "float8": {name: x.to(torch.float8_e4m3fn) for name, x in state.items()},
        "complex": {**state, first: torch.zeros(1, 1, dtype=torch.complex64)},
    }
    if family.alias is not None:
        old, new = family.alias
        aliases = {new + name.removeprefix(old): x for name, x in state.items() if name.startswith(old)}
        changed["mixed names"] = state | {name: x.clone() for name, x in aliases.items()}
    for name in family.head_names():
        changed[f"a head without rows, {name}"] = {**state, name: torch.zeros((), dtype=torch.uint8)}
        changed[f"a head of ten million, {name}"] = {**state, name: torch.zeros(10**7, 1, dtype=torch.uint8)}
        changed[f"a head of another width, {name}"] = {**state, name: state[name][:, :1].clone()}
        break
    if family.is_torch:
        byte = torch.zeros(1, dtype=torch.uint8)
        changed["one number repeated"] = {**state, first: byte.expand(BILLION, 64)}
        changed["no storage"] = {**state, first: torch.empty(BILLION, 64, device="meta")}
        changed["sparse"] = {**state, first: torch.zeros(2, 2).to_sparse()}
    yield from changed.items()


def _exchanged(state: State) -> State:
    """Each name gets the tensor of the next name whose shape is another."""
    names, moved = list(state), list(state.values())
    for place in range(len(names) - 1):
        if moved[place].shape != moved[place + 1].shape:
            moved[place], moved[place + 1] = moved[place + 1], moved[place]
    largest = sorted(range(len(names)), key=lambda place: -moved[place].numel())
    for one, other in zip(largest[::2], largest[1::2], strict=False):
        if moved[one].shape == state[names[one]].shape:
            moved[one], moved[other] = moved[other], moved[one]
    return {name: x.clone() for name, x in zip(names, moved, strict=True)}


def _configs(family: Family) -> Iterator[tuple[str, Case]]:
    """config.json and vocabularies of absurd values beside whole weights."""
    if "config.json" not in family.files or not family.names:
        return
    good = json.loads(family.files["config.json"])
    layers, width, places, words = family.names
    wrong: dict[str, Any] = {
        "a billion layers": {layers: BILLION},
        "layers below none": {layers: -1},
        "layers in letters": {layers: "12"},
        "as wide as memory": {width: 9_999_000},
        "too wide to be filled": {width: 4096, layers: 400, places: 100_000},
        "many places": {places: 9_999_999},
        "many words": {words: 9_999_999},
        "NaN": {width: float("nan")},
        "Infinity": {width: float("inf")},
        "a list": {width: [[[]]]},
        "400 digits": {places: 10**400},
        "another kind": {"model_type": "evil", "_model_class": "Evil"},
    }
    for what, change in wrong.items():
        yield f"config: {what}", _beside(family, "config.json", json.dumps({**good, **change}).encode())
    yield "config: deep", _beside(family, "config.json", b'{"a":' * 50_000 + b"1" + b"}" * 50_000)
    yield "config: a list of lists", _beside(family, "config.json", b"[[1], 2]")
    yield "config: cut", _beside(family, "config.json", family.files["config.json"][:20])


def _beside(family: Family, name: str, content: bytes) -> Case:
    return {**family.files, name: content}, family.file


def _pictures(family: Family) -> Iterator[tuple[str, Case]]:
    """What timm's config.json says of images."""
    for change in (
        {"input_size": [3, BILLION, BILLION]},
        {"input_size": [3]},
        {"input_size": [3, -224, -224]},
        {"mean": [float("nan")] * 3},
        {"std": [0, 0, 0]},
        {"crop_pct": float("inf")},
        {"input_size": [float("inf")] * 3},
        {"mean": [0.5] * 100_000, "std": [0.5] * 100_000},
    ):
        yield (
            f"config: {str(change)[:40]}",
            _beside(family, "config.json", json.dumps({"pretrained_cfg": change}).encode()),
        )


def _tokenizers(family: Family) -> Iterator[tuple[str, Case]]:
    """Vocabularies that cannot be."""
    name = "tokenizer.json" if "tokenizer.json" in family.files else "vocab.json"
    content = family.files.get(name, b'{"a": 1}')
    spoilt: dict[str, bytes] = {
        "deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "cut": content[: len(content) // 2],
        "of numbers": b"[1, 2, 3]",
        "negative": b'{"</s>": -1, "<unk>": 1, "<pad>": 2}',
        "NaN": b'{"</s>": NaN, "<unk>": 1, "<pad>": 2}',
        "empty": b"",
        "no UTF-8": b'{"\xff\xfe": 1}',
    }
    for what, wrong in spoilt.items():
        yield f"vocabulary: {what}", _beside(family, name, wrong)


def _pieces(family: Family) -> Iterator[tuple[str, Case]]:
    yield from _tokenizers(family)
    yield "pieces: cut", _beside(family, "source.spm", family.files["source.spm"][:300])
    yield "pieces: a page", _beside(family, "target.spm", HTML)
    yield "pieces: none", _beside(family, "target.spm", b"")


def _alphabets(family: Family) -> Iterator[tuple[str, Case]]:
    yield "alphabet: negative", _beside(family, "vocab.json", b'{"a": -1}')
    yield "alphabet: too many", _beside(family, "vocab.json", json.dumps({str(n): n for n in range(99)}).encode())
    yield "alphabet: in letters", _beside(family, "vocab.json", b'{"a": "1"}')
    yield "alphabet: twice", _beside(family, "vocab.json", b'{"<1>": 0, "<0>": 5, "x": 3}')
    yield "alphabet: deep", _beside(family, "vocab.json", b"[" * 50_000 + b"]" * 50_000)
    written = torch.tensor(list(("0\n \n" + "\n".join(str(n) for n in range(200_000))).encode()), dtype=torch.uint8)
    state = {**family.state, "vocabulary": written, "lm_head.weight": torch.zeros(200_000, 1, dtype=torch.uint8)}
    state = {
        (name if "lm_head" in name else f"trunk.{name}").replace("lm_head", "head.lm_head"): x
        for name, x in state.items()
    }
    state["head.vocabulary"] = state.pop("trunk.vocabulary")
    yield "alphabet: of 200,000 in the weights", _beside(family, family.file, family.packed(state))


def _arrays(family: Family) -> Iterator[tuple[str, Case]]:
    """PANNs' file with a sampler's arrays, of which the one that makes them is another."""

    def text(content: bytes) -> bytes:
        return b"X" + struct.pack("<I", len(content)) + content

    def array(reconstruct: bytes, state: bytes) -> bytes:
        made = reconstruct + b"(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR" + state + b"b"
        return b"\x80\x02}" + text(b"model") + b"}" + text(b"w") + made + b"ss."

    numpys = b"cnumpy.core.multiarray\n_reconstruct\n"
    four = b"c_codecs\nencode\n(" + text(b"abcd") + text(b"latin1") + b"tR"
    kind = b"cnumpy\ndtype\n(" + text(b"f4") + b"K\x00K\x01tR"
    little = b"(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    for what, content in {
        "os.system makes them": array(b"cposix\nsystem\n", b"N"),
        "their type is a command": array(numpys, b"(K\x01K\x01\x85cos\nsystem\n" + text(b"true") + b"\x85R\x89Nt"),
        "their type is told a number": array(numpys, b"(K\x01K\x01\x85" + kind + b"K\x05b\x89" + four + b"t"),
        "their shape is a billion": array(numpys, b"(K\x01J\x00\xca\x9a;\x85" + kind + little + b"\x89" + four + b"t"),
        "they are one number": array(numpys, b"(K\x01K\x01\x85" + kind + little + b"\x89" + four + b"t"),
        "they hold themselves": b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s"
        + b"X\x01\x00\x00\x00acnumpy\ndtype\nX\x01\x00\x00\x00f\x85Rs.",
    }.items():
        packed = _zip({"archive/data.pkl": content, "archive/version": b"3\n", "archive/byteorder": b"little"})
        yield f"arrays: {what}", ({family.file: packed}, family.file)


def _bundle(family: Family) -> Iterator[tuple[str, Case]]:
    """TensorFlow's index and data."""
    name = "transformer/body/decoder/layer_0/ffn/conv1/kernel"
    data = "music.ckpt.data-00000-of-00001"
    index = family.files[family.file]
    four = entry(1, (1,), 0, 4, masked(bytes(4)))
    spoilt: dict[str, Files] = {
        "no data": {family.file: index},
        "data cut": {**family.files, data: family.files[data][:-4]},
        "data changed": {**family.files, data: bytes(1) + family.files[data][1:] + b""},
        "too large": {family.file: index_of({name: entry(1, (BILLION, 2), 0, 8 * BILLION, 0)}), data: bytes(64)},
        "larger than numbers go": {family.file: index_of({name: entry(1, (1 << 62, 4), 0, 4, 0)}), data: bytes(64)},
        "behind the end": {family.file: index_of({name: entry(1, (1,), 1 << 40, 4, 0)}), data: bytes(64)},
        "twice the same bytes": {family.file: index_of({name: four, name + "x": four}), data: bytes(64)},
        "a type that is a text": {family.file: index_of({name: entry(7, (1,), 0, 4, 0)}), data: bytes(64)},
        "rows without numbers": {family.file: index_of({name: entry(1, (BILLION, 0), 0, 0, masked(b""))}), data: b""},
        "many data files": {family.file: index_of({name: four}, shards=99_999), data: bytes(64)},
        "of another kind": {family.file: index_of({name: four}), data: bytes(64)},
        "a magic number alone": {family.file: bytes(40) + MAGIC},
    }
    for what, files in spoilt.items():
        yield f"bundle: {what}", (files, family.file)


def _vectors(family: Family) -> Iterator[tuple[str, Case]]:
    content = family.files[family.file]
    start = content.find(b"\n") + 1
    spoilt = {
        "an absurd count": b"40000000 300\n" + content[start:],
        "an absurd width": b"9 99999999\n" + content[start:],
        "below none": b"-5 -10\n" + content[start:],
        "an endless line": b"the " + b"1" * 400_000,
        "fastText of absurd buckets": content[:40] + struct.pack("<i", 2**31 - 1) + content[44:],
        "fastText of absurd words": content[:64] + struct.pack("<2i", 40_000_000, 40_000_000) + content[72:],
    }
    for what, wrong in list(spoilt.items())[4:] if family.model == "fasttext" else list(spoilt.items())[:4]:
        yield f"vectors: {what}", ({family.file: wrong}, family.file)


def _priors(family: Family) -> Iterator[tuple[str, Case]]:
    """Shapes from which a Jukebox prior is built."""
    state = family.state
    for what, name, shape in (
        ("many places", "prior.pos_emb.pos_emb", (64 * 100_000, 1)),
        ("wide attention", "prior.transformer._attn_mods.0.attn.c_proj.w", (10**6, 1)),
        ("many artists", "y_emb.artist_emb.emb.weight", (10**6, 1)),
        ("many symbols", "prior.x_emb.weight", (10**6, 1)),
    ):
        wrong = {**state, f"module.{name}": torch.zeros(shape, dtype=torch.uint8)}
        yield f"prior: {what}", ({family.file: family.packed(wrong)}, family.file)
    yield "prior: a vqvae that is a page", ({**family.files, "vqvae.pth.tar": HTML}, family.file)
    yield (
        "prior: a vqvae that executes",
        ({**family.files, "vqvae.pth.tar": hostile_pickle("os.system", "true", 2)}, family.file),
    )


def _brain(family: Family) -> Iterator[tuple[str, Case]]:
    wide = {**family.state, "encoder1.enc1conv1.weight": torch.zeros(10_000, 3, 3, 3, dtype=torch.uint8)}
    yield "a first layer of 10,000", ({family.file: family.packed(wide)}, family.file)


def _music(family: Family) -> Iterator[tuple[str, Case]]:
    """The torch form of a Music Transformer whose table of distances alone is large."""
    yield from _bundle(family)
    stack = {"embedding.weight": torch.zeros(310, 8), "Wout.weight": torch.zeros(310, 8)}
    layer = {"self_attn.in_proj_weight": (24, 8), "linear1.weight": (16, 8), "self_attn.Er": (1_000_000, 4)}
    for number in range(200):
        tensors = {
            key: torch.zeros(shape if number == 0 or "Er" not in key else (1, 4)) for key, shape in layer.items()
        }
        stack |= {f"transformer.encoder.layers.{number}.{key}": x for key, x in tensors.items()}
    torch_file = replace(family, file="music.pth")
    yield "one long table for 200 layers", ({"music.pth": torch_file.packed(stack)}, "music.pth")
    stack["embedding.weight"] = torch.zeros(310, 7)
    yield "an odd width", ({"music.pth": torch_file.packed(stack)}, "music.pth")
    shared = torch.zeros(1 << 20, dtype=torch.uint8)
    many = {f"transformer.encoder.layers.{number}.linear1.weight": shared for number in range(20_000)}
    yield "20,000 names for one tensor", ({"music.pth": torch_file.packed(many)}, "music.pth")


OWN: dict[str, Callable[[Family], Iterator[tuple[str, Case]]]] = {
    "vit-tiny-patch16-224": _pictures,
    "bert-base-uncased": _tokenizers,
    "roberta-base": _tokenizers,
    "gpt2": _tokenizers,
    "t5-small": _tokenizers,
    "opus-mt-en-de": _pieces,
    "wav2vec2-base-960h": _alphabets,
    "panns-cnn6": _arrays,
    "music-transformer": _music,
    "jukebox-1b-lyrics": _priors,
    "unet-brain-mri": _brain,
    **dict.fromkeys(VECTORS, _vectors),
}


def _absurd_header(shape: list[int], size: int = 16) -> bytes:
    header = json.dumps({"weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def _zip(parts: Files, compressed: bool = False) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _tar(command: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        link = tarfile.TarInfo("storages")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name in ("../pickle", "pickle", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(command)
            archive.addfile(member, io.BytesIO(command))
    return stream.getvalue()
