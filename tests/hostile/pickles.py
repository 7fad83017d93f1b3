"""Pickles that call something when they are read, in every protocol and in the wrappings that weights come in.

They are written opcode by opcode: nothing here imports or calls what they name.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy

CALLABLES = """
os.system posix.system os.popen os.execv os.execvp os.spawnl os.posix_spawn os.remove os.rename os.putenv
subprocess.Popen subprocess.call subprocess.run subprocess.check_output subprocess.getoutput
builtins.eval builtins.exec builtins.compile builtins.__import__ builtins.open builtins.getattr builtins.input
builtins.breakpoint importlib.import_module runpy.run_path runpy.run_module code.interact pdb.run timeit.timeit
cProfile.run trace.Trace pty.spawn ctypes.CDLL webbrowser.open shutil.rmtree shutil.copyfile socket.create_connection
urllib.request.urlopen urllib.request.urlretrieve http.client.HTTPConnection ftplib.FTP smtplib.SMTP
pickle.loads pickle._loads marshal.loads types.CodeType types.FunctionType functools.partial operator.methodcaller
operator.attrgetter multiprocessing.Process threading.Thread asyncio.run tempfile.mkdtemp logging.config.fileConfig
numpy.load numpy.testing._private.utils.runstring torch.load torch.hub.load torch.hub.download_url_to_file
torch.storage._load_from_bytes torch.utils.cpp_extension.load_inline torch.jit.load torch.ops.load_library
torch.distributed.run.main torch._dynamo.guards.GuardBuilder
""".split()
PROTOCOLS = range(6)
FORMATS = (
    ".pth",
    ".pt",
    ".bin",
    ".ckpt",
    ".zip.pt",
    ".safetensors",
    ".tar",
    ".pkl",
    ".joblib",
    ".npy",
    ".h5",
    ".keras",
)
FORMATS += (".pt2", ".model", ".onnx", ".gguf", ".msgpack", ".npz")


def hostile_pickle(target: str, argument: str, protocol: int) -> bytes:
    """A pickle that calls `target` with one text when it is read."""
    module, _, name = target.rpartition(".")
    start = b"" if protocol < 2 else b"\x80" + bytes([protocol])
    if protocol < 4:
        function = b"c" + f"{module}\n{name}\n".encode()
        text = b"V" + argument.encode("raw_unicode_escape") + b"\n"
    else:
        function = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)) + b"\x93"
        text = b"X" + struct.pack("<I", len(argument)) + argument.encode()
    call = b"(" + text + b"tR" if protocol < 2 else text + b"\x85R"
    return start + function + call + b"."


def wrapped(content: bytes, suffix: str) -> bytes:
    """The pickle as a file of this kind would hold it."""
    if suffix in (".zip.pt", ".pt2", ".keras"):
        return _zip({"archive/data.pkl": content, "archive/version": b"3\n", "archive/byteorder": b"little"})
    if suffix == ".npz":
        return _zip({"a.npy": _npy(content)})
    if suffix == ".tar":
        return _tar({"pickle": content, "storages": content, "tensors": content})
    if suffix == ".npy":
        return _npy(content)
    return content


def write_all(folder: Path, canary: Path, count: int) -> None:
    """`count` files; each callable, protocol and format is there as often as any other."""
    for number in range(count):
        target = CALLABLES[number % len(CALLABLES)]
        suffix = FORMATS[number % len(FORMATS)]
        argument = f"touch {canary}" if "." in target else str(canary)
        pickled = hostile_pickle(target, argument, PROTOCOLS[number % len(PROTOCOLS)])
        (folder / f"{number:04d}-{target}{suffix}").write_bytes(wrapped(pickled, suffix))


def write_torch_like(folder: Path, canary: Path) -> None:
    """Real checkpoints with a hostile part in them: nested, behind a state dict, compressed, with a flipped flag."""
    hostile = hostile_pickle("os.system", f"touch {canary}", 2)
    inner = b"\x80\x02}q\x00X\x05\x00\x00\x00modelq\x01" + hostile[2:-1] + b"s."
    (folder / "behind-a-state-dict.pth").write_bytes(inner)
    (folder / "nested-in-a-storage.pth").write_bytes(pickle.dumps({"weight": numpy.zeros(3)}, protocol=2) + hostile)
    packed = _zip({"archive/data.pkl": hostile, "archive/data/0": b"\0" * (64 << 20)}, compressed=True)
    (folder / "bomb.pt").write_bytes(packed)
    plain = bytearray(_zip({"archive/data.pkl": hostile}))
    plain[6] ^= 1  # says that it is encrypted
    (folder / "flag.pt").write_bytes(plain)
    crc = bytearray(_zip({"archive/data.pkl": hostile, "archive/version": b"3\n"}))
    crc[14] ^= 0xFF
    (folder / "crc.pt").write_bytes(crc)


def pieces(content: bytes) -> Iterator[bytes]:
    """A file cut at ten places."""
    yield from (content[: len(content) * part // 10] for part in range(10))


def _npy(content: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def _zip(parts: dict[str, bytes], compressed: bool = False) -> bytes:
    stream = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _tar(parts: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()
