"""CTC: decoding and loss against sums over all alignments, the head's targets, texts, copies and errors."""

from __future__ import annotations

import copy
import itertools
import math
from collections import defaultdict

import pytest
import torch
from torch import Tensor

from neurenix.audio import Alphabet, beam_decode, greedy_decode
from neurenix.audio.ctc import collapse
from neurenix.errors import ConfigurationError, DamagedFileError, InputMismatchError, LabelMismatchError
from neurenix.models.audio._ctc_head import CTCHead


def scores(frames: int, symbols: int, seed: int, sharpness: float = 2.0) -> Tensor:
    drawn = torch.randn(frames, symbols, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn * sharpness).log_softmax(1)


def summed_alignments(log_probabilities: Tensor, blank: int) -> dict[tuple[int, ...], float]:
    """Sequence -> probability, by walking through all symbols^frames alignments."""
    probabilities = log_probabilities.exp().tolist()
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for alignment in itertools.product(range(log_probabilities.shape[1]), repeat=len(probabilities)):
        merged = [symbol for symbol, _ in itertools.groupby(alignment)]
        product = math.prod(frame[symbol] for frame, symbol in zip(probabilities, alignment, strict=True))
        found[tuple(symbol for symbol in merged if symbol != blank)] += product
    return found


@pytest.mark.parametrize(("frames", "symbols", "blank"), [(1, 2, 0), (4, 3, 0), (5, 3, 2), (6, 3, 1), (4, 4, 0)])
def test_enough_beams_give_every_sequence_its_probability(frames: int, symbols: int, blank: int) -> None:
    for seed in range(3):
        table = scores(frames, symbols, seed)
        wanted = summed_alignments(table, blank)
        found = beam_decode(table, 10_000, blank)
        assert {transcript.symbols for transcript in found} == set(wanted)
        for transcript in found:
            assert math.exp(transcript.log_probability) == pytest.approx(wanted[transcript.symbols], rel=1e-10)
        assert sorted(found, key=lambda transcript: -transcript.log_probability) == found


def test_few_beams_give_lower_bounds_and_mostly_the_best() -> None:
    hits = 0
    for seed in range(20):
        table = scores(6, 3, seed)
        wanted = summed_alignments(table, 0)
        found = beam_decode(table, 4)
        assert len(found) <= 4 and len({transcript.symbols for transcript in found}) == len(found)
        for transcript in found:
            assert math.exp(transcript.log_probability) <= wanted[transcript.symbols] * (1 + 1e-9)
        hits += found[0].symbols == max(wanted, key=wanted.__getitem__)
    assert hits >= 18


def test_beams_find_what_the_best_path_misses() -> None:
    """Graves et al., figure 2: the most probable alignment is blank, blank, but the alignments of A add up to more."""
    table = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    assert greedy_decode(table) == []
    best = beam_decode(table, 2)[0]
    assert best.symbols == (1,) and math.exp(best.log_probability) == pytest.approx(1 - 0.36)


def test_collapse() -> None:
    assert collapse([0, 1, 1, 0, 1, 2, 2, 0, 0]) == [1, 1, 2]
    assert collapse([]) == [] and collapse([0, 0]) == []
    assert collapse([3, 0, 3], blank=3) == [0]


def test_certain_frames_and_none_at_all() -> None:
    certain = torch.full((4, 3), -math.inf)
    certain[torch.arange(4), torch.tensor([1, 0, 1, 2])] = 0
    assert greedy_decode(certain) == [1, 1, 2]
    assert [(found.symbols, found.log_probability) for found in beam_decode(certain, 8)] == [((1, 1, 2), 0.0)]
    assert greedy_decode(torch.zeros(0, 3)) == [] and beam_decode(torch.zeros(0, 3))[0].symbols == ()


def test_scores_that_cannot_be_read() -> None:
    with pytest.raises(InputMismatchError, match=r"frames, symbols"):
        greedy_decode(torch.zeros(1, 2, 3))
    with pytest.raises(InputMismatchError, match="one of the symbols"):
        beam_decode(torch.zeros(2, 3), 4, blank=3)
    with pytest.raises(InputMismatchError, match="NaN"):
        greedy_decode(torch.full((2, 3), math.nan))
    with pytest.raises(ConfigurationError, match="at least 1"):
        beam_decode(torch.zeros(2, 3), 0)


# --- symbols --------------------------------------------------------------------------------------------------------

SPEECH = Alphabet(symbols=("<pad>", "<s>", "|", "A", "B", "'"), space="|")


def test_texts_become_numbers_and_back() -> None:
    assert SPEECH.encode("Ab 'a").tolist() == [3, 4, 2, 5, 3]
    assert SPEECH.decode([2, 3, 1, 4, 2, 5, 0, 3, 2]) == "AB 'A"
    assert SPEECH.encode("").shape == (0,)
    for text in ("c", "|", "<", "<s>"):
        with pytest.raises(LabelMismatchError, match="no symbol stands for"):
            SPEECH.encode(text)


def test_symbols_are_written_as_bytes() -> None:
    other = Alphabet(symbols=("ß", "é", "語", "_"), blank=3)
    for alphabet in (SPEECH, other):
        assert Alphabet.from_tensor(alphabet.to_tensor()) == alphabet
    for wrong in (torch.tensor([255], dtype=torch.uint8), torch.tensor(list(b"9\n \na\nb"), dtype=torch.uint8)):
        with pytest.raises(DamagedFileError):
            Alphabet.from_tensor(wrong)


def test_symbols_that_cannot_be() -> None:
    for symbols, blank in [(("a", "a"), 0), (("a", ""), 0), (("a", "b\n"), 0), (("a", "b"), 2)]:
        with pytest.raises(ConfigurationError):
            Alphabet(symbols=symbols, blank=blank)


# --- the head -------------------------------------------------------------------------------------------------------


def head(blank: int = 0, **more: object) -> CTCHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        alphabet = Alphabet(symbols=("_", "a", "b"), blank=blank)
        return CTCHead(4, alphabet, name="fc.0.module.1", frames=lambda inputs: inputs, **more)


FEATURES = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1)) * 2
LENGTHS = torch.tensor([5, 3, 4])


def test_the_loss_is_the_sum_over_alignments() -> None:
    own = head()
    targets = torch.tensor([[1, 1, 2], [2, 1, -1], [-1, -1, -1]])
    loss = own.losses(FEATURES, LENGTHS, targets)
    assert list(loss) == ["ctc"] and loss["ctc"].ndim == 0
    assert torch.equal(own.losses(FEATURES, LENGTHS, targets.float())["ctc"], loss["ctc"])
    wanted = []
    for sample, length, target in zip(own(FEATURES, LENGTHS).detach(), LENGTHS, targets, strict=True):
        table = summed_alignments(sample[:length].double().log_softmax(1), 0)
        text = tuple(number for number in target.tolist() if number >= 0)
        wanted.append(-math.log(table[text]) / max(len(text), 1))
    assert loss["ctc"].item() == pytest.approx(sum(wanted) / 3, rel=1e-5)


def test_padding_frames_count_neither_in_loss_nor_answers() -> None:
    own, targets = head(), torch.tensor([[1], [2], [1]])
    moved = FEATURES.clone()
    for row, length in enumerate(LENGTHS):
        moved[row, length:] += 100
    assert torch.equal(*(own.losses(features, LENGTHS, targets)["ctc"] for features in (FEATURES, moved)))
    assert own.answers(FEATURES, LENGTHS) == own.answers(moved, LENGTHS)


def test_answers_are_texts_by_best_path_or_beams() -> None:
    own = head()
    layer = own.get_submodule("fc.0.module.1")
    with torch.no_grad():
        layer.weight.zero_()[:, :3] = torch.eye(3)
        layer.bias.zero_()
    features = torch.zeros(1, 2, 4)
    features[..., :2] = torch.tensor([0.6, 0.4]).log()
    features[..., 2] = -100
    assert own.answers(features, torch.tensor([2])) == [""]
    own.beam_width = 4
    assert own.answers(features, torch.tensor([2])) == ["a"]


def test_names_copies_and_states() -> None:
    own = head(bias=False)
    assert set(own.state_dict()) == {"vocabulary", "fc.0.module.1.weight"}
    twin = copy.deepcopy(own)
    assert twin.symbols == ("_", "a", "b") and torch.equal(twin(FEATURES, LENGTHS), own(FEATURES, LENGTHS))
    other = CTCHead(4, Alphabet(symbols=("語", "b", "*"), blank=2, space="語"), name="fc.0.module.1", bias=False)
    own.load_state_dict(other.state_dict())
    assert own.alphabet == other.alphabet and own.blank == 2 and own.num_outputs == 3


def test_no_classes_and_wrong_targets() -> None:
    own = head()
    with pytest.raises(ConfigurationError, match="pooled features"):
        own.for_classes(5)
    wrong = {
        "padded with -1": (torch.tensor([1, 2, 1]), torch.tensor([[1.5], [1], [1]]), ["a", "b", "a"]),
        "at their end": (torch.tensor([[-1, 1], [1, 1], [1, 1]]),),
        "blank": (torch.tensor([[3], [1], [1]]), torch.tensor([[0], [1], [1]])),
        "another sound": (torch.tensor([[1, 2, 1], [1, 1, 2], [1, 2, 1]]),),
    }
    for words, cases in wrong.items():
        for targets in cases:
            with pytest.raises(LabelMismatchError, match=words):
                own.losses(FEATURES, LENGTHS, targets)
