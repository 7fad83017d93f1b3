"""Words spoken by eSpeak NG, a speech synthesiser with many voices, which the package espeakng-loader carries."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np

_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8, _RATE = 2, 0x8000, 1, 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Speaker:
    """The library opened once in this process: it keeps its state in globals."""

    def __init__(self) -> None:
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        folder = espeakng_loader.get_data_path().encode()
        self.sample_rate = int(self.library.espeak_Initialize(_SYNCHRONOUS, 0, folder, _DO_NOT_EXIT))
        assert self.sample_rate > 0, "eSpeak NG finds none of its data"
        self.heard: list[np.ndarray] = []
        self.callback = _CALLBACK(self._hear)  # kept, as the library holds only an address
        self.library.espeak_SetSynthCallback(self.callback)

    def say(self, text: str, voice: str, words_per_minute: int) -> np.ndarray:
        """(samples,) int16 of a voice such as en-us+f2: language, then variant."""
        self.heard = []
        assert self.library.espeak_SetVoiceByName(voice.encode()) == 0, f"there is no voice {voice}"
        self.library.espeak_SetParameter(_RATE, words_per_minute, 0)
        data = text.encode()
        assert self.library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None) == 0
        return np.concatenate(self.heard)

    def _hear(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: int | None) -> int:
        if samples and count > 0:
            self.heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


@cache
def speaker() -> Speaker:
    """The one that is there."""
    return Speaker()


def sound(text: str, voice: str, words_per_minute: int) -> tuple[np.ndarray, int]:
    """(samples, hertz)"""
    return speaker().say(text, voice, words_per_minute), speaker().sample_rate
