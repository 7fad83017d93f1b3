"""A small hub on 127.0.0.1 that answers huggingface_hub as the real one does, and checkpoints to put on it.

    with local_hub(tmp_path) as hub, relaxed_records():
        write_random_checkpoint(hub, "resnet50")  # timm/resnet50.tv_in1k: random numbers, the real format
        model = load_pretrained_model("resnet50", weights="imagenet")

`local_hub` points HF_ENDPOINT at the server and gives the process fresh, empty caches (HF_HUB_CACHE,
NEURENIX_HOME). `relaxed_records` lets the records of our architectures accept what this hub serves: revision
`main`, no hash.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

LARGE = 64 * 1024  # from this size on a file counts as LFS: its ETag is its SHA-256
WORDS = (
    "a the this that it is was are not no very good bad great poor film movie plot product book word text "
    "long short man woman dog cat eats food has meal play plays music sun rain day night happy sad love "
    "hate best worst time"
).split()


class LocalHub:
    """Serves repositories: folders `owner/name` whose content `commit` makes a version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, str]] = []
        self._commits: dict[str, dict[str, dict[str, str]]] = {}  # repository -> commit -> file -> sha256
        self._branches: dict[str, dict[str, str]] = {}
        self._damaged: set[str] = set()
        self._blobs = folder / ".blobs"
        self._blobs.mkdir(parents=True, exist_ok=True)
        for repository in sorted(folder.glob("[!.]*/*")):
            self.commit(repository.relative_to(folder).as_posix())
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LocalHub:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(self, repository: str, branch: str = "main") -> str:
        """Make the folder's present content a version, move the branch to it, and return its commit."""
        files = {}
        root = self.folder / repository
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            if not (self._blobs / sha256).exists():
                shutil.copyfile(path, self._blobs / sha256)
            files[path.relative_to(root).as_posix()] = sha256
        commit = hashlib.sha1(json.dumps([repository, files]).encode()).hexdigest()
        self._commits.setdefault(repository, {})[commit] = files
        self._branches.setdefault(repository, {})[branch] = commit
        return commit

    def forget(self, repository: str, commit: str) -> None:
        """Take a commit away, as a rewritten history does."""
        del self._commits[repository][commit]

    def damage(self, repository: str, file: str) -> None:
        """From now on serve this file with the same size and stated hash but other bytes."""
        self._damaged.add(self._commits[repository][self._branches[repository]["main"]][file])

    def heal(self) -> None:
        """Serve everything whole again."""
        self._damaged.clear()

    def find(self, repository: str, revision: str) -> tuple[str | None, dict[str, str] | None]:
        """The commit and the files of a revision; (None, None) when there is no such repository."""
        if repository not in self._commits:
            return None, None
        commit = self._branches[repository].get(revision, revision)
        return commit, self._commits[repository].get(commit)

    def content(self, sha256: str) -> bytes:
        content = (self._blobs / sha256).read_bytes()
        return flipped(content) if sha256 in self._damaged else content

    def size(self, sha256: str) -> int:
        return (self._blobs / sha256).stat().st_size


@contextlib.contextmanager
def local_hub(folder: Path) -> Iterator[LocalHub]:
    """A running LocalHub that this process takes for the hub, with empty caches below `folder`."""
    from huggingface_hub import constants

    with LocalHub(folder / "repositories") as hub:
        environment = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_CACHE": str(folder / "hub-cache"),
            "NEURENIX_HOME": str(folder / "neurenix"),
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
        }
        with (
            mock.patch.dict("os.environ", environment),
            mock.patch.object(constants, "HF_HUB_OFFLINE", False),
        ):
            yield hub


@contextlib.contextmanager
def relaxed_records() -> Iterator[None]:
    """Every hub record of ours asks for branch `main` and no particular hash while this is open."""
    from neurenix.models import ARCHITECTURES, HubSource

    with contextlib.ExitStack() as stack:
        for architecture in ARCHITECTURES.values():
            relaxed = {
                name: dataclasses.replace(
                    record, sha256=None, source=dataclasses.replace(record.source, revision="main")
                )
                for name, record in architecture.weights.items()
                if isinstance(record.source, HubSource)
            }
            stack.enter_context(mock.patch.dict(architecture.weights, relaxed))
        yield


def write_random_checkpoint(
    hub: LocalHub | Path,
    architecture_name: str,
    *,
    weights: str | None = None,
    seed: int = 0,
    classes: int = 1000,
) -> str:
    """Put random weights for one of our architectures on the hub, in the real format; return its name.

    Vision: timm's own keys in model.safetensors, float32. Text: two small layers in a masked-language
    checkpoint with config.json and tokenizer files; its vocabulary is WORDS and single letters.
    hub: a LocalHub (the repository is committed), or the folder that one is started on later.
    weights: which of the architecture's hub records to imitate; the first one when not given.
    """
    from neurenix.models import ARCHITECTURES, HubSource

    architecture = ARCHITECTURES[architecture_name]
    sources = {
        name: record.source for name, record in architecture.weights.items() if isinstance(record.source, HubSource)
    }
    source = sources[weights] if weights else next(iter(sources.values()))
    root = (hub.folder if isinstance(hub, LocalHub) else hub) / source.repository
    root.mkdir(parents=True, exist_ok=True)
    if architecture.domain == "nlp":
        write_text_checkpoint(root, "roberta" if "roberta" in architecture.name else "bert", seed=seed)
    else:
        write_timm_checkpoint(root, source.repository.split("/")[1].split(".")[0], seed=seed, classes=classes)
    if isinstance(hub, LocalHub):
        hub.commit(source.repository)
    return source.repository


def write_timm_checkpoint(root: Path, timm_name: str, *, seed: int = 0, classes: int = 1000) -> None:
    """model.safetensors as timm publishes it: the network's own state dict, with random statistics too."""
    import timm
    import torch
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = timm.create_model(timm_name, pretrained=False, num_classes=classes)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-0.1, 0.1)  # small, so that the signal does not die in the activations
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    save_file(network.state_dict(), root / "model.safetensors", metadata={"format": "pt"})


def write_text_checkpoint(root: Path, kind: str, *, seed: int = 0, **sizes: int) -> None:
    """A small checkpoint of kind `bert` or `roberta` with the hub's key names, and its tokenizer."""
    import torch
    import transformers
    from safetensors.torch import save_file

    vocabulary = write_tokenizer(root, kind)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    special = {"bert": {"pad_token_id": 0, "max_position_embeddings": 512, "layer_norm_eps": 1e-12}}
    special["roberta"] = {
        "pad_token_id": 1,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    }
    settings: dict[str, Any] = {"vocab_size": vocabulary, **small, **special[kind], **sizes}
    build = {
        "bert": lambda: transformers.BertForPreTraining(transformers.BertConfig(**settings)),
        "roberta": lambda: transformers.RobertaForMaskedLM(transformers.RobertaConfig(**settings)),
    }[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = build().state_dict()
    if kind == "bert":  # the published files of 2018 still say gamma and beta
        state = {_old_norm_name(name): tensor for name, tensor in state.items()}
    tensors = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    save_file(tensors, root / "model.safetensors", metadata={"format": "pt"})
    settings |= {"model_type": kind, "architectures": ["BertForMaskedLM"], "hidden_act": "gelu"}
    (root / "config.json").write_text(json.dumps(settings, indent=2))


def write_tokenizer(root: Path, kind: str) -> int:
    """Tokenizer files as the hub has them, word pieces or bytes; returns the vocabulary size."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    if kind == "bert":
        letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789.,!?'-")
        names = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            *letters,
            *(f"##{letter}" for letter in letters),
        ]
        names += [word for word in WORDS if word not in names]
        tokenizer = Tokenizer(models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        tokenizer.decoder = decoders.WordPiece()
        (root / "vocab.txt").write_text("\n".join(names) + "\n")
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "<mask>"]
        vocabulary = {name: number for number, name in enumerate(names)}
        tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        tokenizer.decoder = decoders.ByteLevel()
        (root / "vocab.json").write_text(json.dumps(vocabulary))
        (root / "merges.txt").write_text("#version: 0.2\n")
        special = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    tokenizer.add_special_tokens(list(special.values()))
    tokenizer.save(str(root / "tokenizer.json"))
    (root / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512, **special}))
    return tokenizer.get_vocab_size()


def flipped(content: bytes) -> bytes:
    """The same number of bytes, with one in the last quarter changed: a tensor's value, not the header."""
    place = len(content) * 7 // 8
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def flip_file(path: Path) -> None:
    """Change one byte of a file (of what a link points to), keeping its size."""
    target = path.resolve()
    target.write_bytes(flipped(target.read_bytes()))


def _old_norm_name(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


class Handler(BaseHTTPRequestHandler):
    hub: LocalHub  # set on the subclass that a LocalHub makes for itself
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(send=True)

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self, *, send: bool) -> None:
        path = urllib.parse.urlsplit(self.path).path
        self.hub.requests.append((self.command, urllib.parse.unquote(path)))
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        if parts[:2] == ["api", "models"] and len(parts) == 6 and parts[4] == "revision":
            self._information("/".join(parts[2:4]), parts[5], send)
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), send)
        else:
            self._refuse("RepoNotFound", send)

    def _information(self, repository: str, revision: str, send: bool) -> None:
        commit, files = self.hub.find(repository, revision)
        if files is None:
            return self._refuse("RevisionNotFound" if commit else "RepoNotFound", send)
        siblings = []
        for name, sha256 in files.items():
            sibling: dict[str, Any] = {
                "rfilename": name,
                "size": self.hub.size(sha256),
                "blobId": sha256[:40],
            }
            if self.hub.size(sha256) >= LARGE:
                sibling["lfs"] = {"sha256": sha256, "size": self.hub.size(sha256), "pointerSize": 130}
            siblings.append(sibling)
        body = json.dumps({"id": repository, "modelId": repository, "sha": commit, "siblings": siblings}).encode()
        self._send(200, {"Content-Type": "application/json"}, body, send)

    def _file(self, repository: str, revision: str, name: str, send: bool) -> None:
        commit, files = self.hub.find(repository, revision)
        if files is None:
            return self._refuse("RevisionNotFound" if commit else "RepoNotFound", send)
        if name not in files:
            return self._refuse("EntryNotFound", send, {"X-Repo-Commit": str(commit)})
        sha256 = files[name]
        headers = {"X-Repo-Commit": str(commit), "ETag": f'"{sha256[:40]}"'}
        if self.hub.size(sha256) >= LARGE:
            headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(self.hub.size(sha256))}
        self._send(200, headers, self.hub.content(sha256), send)

    def _refuse(self, code: str, send: bool, headers: dict[str, str] | None = None) -> None:
        self._send(404, {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}, b"{}", send)

    def _send(self, status: int, headers: dict[str, str], body: bytes, send: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send:
            self.wfile.write(body)
