"""Gradual self-training: its parts as formulas, and what it does with a tuner, a pool and a way that is none."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from neurenix.errors import ConfigurationError, EmptyDatasetError, NotGradualWarning, UnknownNameError
from neurenix.storage import tensor_digest
from neurenix.transfer import Finetuner
from neurenix.transfer.adaptation import METHODS, gradual
from neurenix.transfer.adaptation.gradual import GradualSelfTraining, adapt
from neurenix.transfer.adaptation.method import method_from, record_of

QUICK = {"epochs": 3, "window": 60}


@pytest.fixture
def shares(generator):
    """(20, 4) probabilities."""
    return torch.randn(20, 4, generator=generator).softmax(1)


# --- pseudo-labels -----------------------------------------------------------------------------------------------


def test_the_least_confident_are_left_out():
    certainty = torch.tensor([0.9, 0.55, 0.7, 0.99, 0.6])
    probabilities = torch.stack([certainty, 1 - certainty], 1)
    assert gradual.confidence(probabilities).tolist() == pytest.approx([0.8, 0.1, 0.4, 0.98, 0.2])
    assert gradual.confident_places(probabilities, 0.2).tolist() == [0, 2, 3, 4]
    assert gradual.confident_places(probabilities, 0.4).tolist() == [0, 2, 3]
    assert gradual.confident_places(probabilities, 0.0).tolist() == [0, 1, 2, 3, 4]


def test_trimming_agrees_with_a_quantile_of_the_confidence(shares):
    """The reference code of the paper keeps what is at or above the quantile of the trimmed share."""
    confidence = (shares.amax(1) - shares.amin(1)).numpy()
    kept = numpy.flatnonzero(confidence >= numpy.quantile(confidence, 0.1, method="higher"))
    assert gradual.confident_places(shares, 0.1).tolist() == kept.tolist()


def test_hard_labels_are_the_most_probable_classes_and_soft_ones_are_never_one_hot(shares):
    assert gradual.hard_labels(shares).tolist() == shares.numpy().argmax(1).tolist()
    sure = torch.eye(4)
    soft = gradual.soft_labels(sure)
    assert torch.allclose(soft.sum(1), torch.ones(4)) and bool((soft > 0).all())
    assert torch.allclose(gradual.soft_labels(shares), shares, atol=1e-5)


def test_pseudo_labels_replace_those_of_a_dataset_and_keep_its_names():
    dataset = TensorDataset(torch.arange(10.0).unsqueeze(1), torch.zeros(10, dtype=torch.long))
    learned = gradual.PseudoLabelled(dataset, [7, 2], torch.tensor([3, 1]), ["a", "b", "c", "d"])
    assert [(float(sample), label) for sample, label in learned] == [(7.0, 3), (2.0, 1)]
    assert learned.targets.tolist() == [3, 1] and learned.classes == ["a", "b", "c", "d"]
    assert learned.sample_name(1) == "sample 2"


# --- windows and order -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(10, 5, [5, 5]), (11, 4, [4, 3, 4]), (7, None, [7]), (3, 9, [3])]
)
def test_windows_are_about_equal_and_lose_nothing(count, size, lengths):
    windows = gradual.equal_windows(count, size)
    assert [len(window) for window in windows] == lengths
    assert [place for window in windows for place in window] == list(range(count))


@pytest.mark.parametrize(
    ("left", "lost", "taken"),
    [
        (100, {20: 0.0}, 20),  # two windows agree
        (100, {20: 0.5, 10: 0.05}, 10),
        (100, {20: 0.5, 10: 0.4, 5: 0.3, 3: 0.35}, 5),  # none agrees: the one that loses least
        (11, {11: 0.0}, 11),
        (21, {21: 0.0}, 21),  # one sample would remain, which is no window
    ],
)
def test_the_longest_step_that_agrees_is_taken(left, lost, taken):
    length, disagreement = gradual.next_window(left, 10, lost.__getitem__, agreeing=0.1, least=3)
    assert (length, disagreement) == (taken, lost[taken])


@pytest.mark.parametrize("name", gradual.ORDERS)
def test_an_order_follows_a_straight_way(name, generator):
    along = torch.rand(200, generator=generator)
    noise = 0.05 * torch.randn(280, 3, generator=generator)
    source, target, pool = noise[:40], noise[40:80] + 1, noise[80:] + along.unsqueeze(1)
    found = gradual.ORDERS[name](source, target, pool)
    assert numpy.corrcoef(found.argsort().argsort(), along.argsort().argsort())[0, 1] > 0.98


def test_the_geodesic_order_follows_a_turn_where_a_straight_one_cannot(generator):
    """Three quarters of a circle: seen from the straight line between its ends, its middle is as far as they are."""
    angles = torch.rand(400, generator=generator) * 1.5 * torch.pi

    def at(angle):
        return torch.stack([angle.cos(), angle.sin()], 1) + 0.02 * torch.randn(len(angle), 2, generator=generator)

    ends = at(torch.zeros(30)), at(torch.full((30,), 1.5 * torch.pi))
    rank = angles.argsort().argsort()
    correlation = {
        name: numpy.corrcoef(order(*ends, at(angles)).argsort().argsort(), rank)[0, 1]
        for name, order in gradual.ORDERS.items()
    }
    assert correlation["geodesic"] > 0.999 > 0.95 > correlation["domain_score"]


def test_a_pool_in_pieces_is_joined(generator):
    pieces = [0.01 * torch.randn(15, 2, generator=generator) + place for place in (0.0, 5.0, 10.0)]
    found = gradual.geodesic_progress(pieces[0], pieces[2], pieces[1])
    assert bool(torch.isfinite(found).all()) and float(found.mean()) == pytest.approx(0.5, abs=0.01)


# --- is the way gradual? -----------------------------------------------------------------------------------------


def _between(share, generator, mixed):
    """(2000, 5) samples a share of the way from 0 to 4 along the first axis; mixed: as a mixture of both ends."""
    moved = (torch.rand(2000, generator=generator) < share).float() if mixed else torch.full((2000,), share)
    samples = torch.randn(2000, 5, generator=generator)
    samples[:, 0] += 4 * moved
    return samples


def test_positions_are_shares_of_the_way(generator):
    source, target = (_between(share, generator, False) for share in (0.0, 1.0))
    found = gradual.positions(source, target, [_between(share, generator, False) for share in (0.25, 0.5)])
    assert found.means == pytest.approx([0.25, 0.5], abs=0.02)
    assert found.spread == pytest.approx(1 / 16, rel=0.1)  # variance 1 over a way of 4


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_mixing_tells_a_mixture_from_a_domain_between(share, generator):
    source, target = (_between(end, generator, False) for end in (0.0, 1.0))
    windows = [_between(share, generator, mixed) for mixed in (False, True)]
    found = gradual.positions(source, target, windows)
    between, mixture = (gradual.mixing(window, found.spread) for window in found.windows)
    assert between < 0.1 and mixture > 0.9


def test_an_even_pool_is_a_third_of_a_mixture():
    """The variance of a uniform position, 1/12, over that of a fair coin, 1/4."""
    assert gradual.mixing(torch.linspace(0, 1, 10001), 0.0) == pytest.approx(1 / 3, abs=1e-3)
    assert gradual.mixing(torch.tensor([0.0, 1.0] * 5000), 0.0) == pytest.approx(1.0, abs=1e-3)


def test_a_cycle_loses_nothing_where_labels_go_on_and_all_where_they_are_drawn(generator):
    means = 4 * torch.eye(3)
    labels = torch.arange(300) % 3
    here, there = (means[labels] + torch.randn(300, 3, generator=generator) for _ in range(2))
    drawn = torch.randint(0, 3, (300,), generator=generator)
    assert gradual.cycle_disagreement(here, labels, there, labels, 3) < 0.02
    assert gradual.cycle_disagreement(here, labels, there, (labels + 1) % 3, 3) == 1.0
    assert gradual.cycle_disagreement(here, labels, there, drawn, 3) > 0.5


# --- with a tuner ------------------------------------------------------------------------------------------------


def _turning(angles, generator):
    """Two classes of points in the plane, on either side of a line that turns. angles: (n,) in degrees."""
    labels = torch.randint(0, 2, (len(angles),), generator=generator)
    turn = torch.deg2rad(torch.as_tensor(angles, dtype=torch.float32))
    side = (2.0 * labels - 1).unsqueeze(1) * torch.stack([turn.cos(), turn.sin()], 1)
    along = torch.randn(len(angles), 1, generator=generator) * torch.stack([-turn.sin(), turn.cos()], 1)
    return 2 * side + 0.3 * along + 0.2 * torch.randn(len(angles), 2, generator=generator), labels


@pytest.fixture
def domains(generator):
    """source, way and target of a half turn: at the end each class is where the other one was."""
    return {
        "source": _turning(torch.zeros(100), generator),
        "way": _turning(torch.linspace(0, 170, 600), generator),
        "target": _turning(torch.full((100,), 170.0), generator),
    }


@pytest.fixture
def tuner(domains):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    tuner = Finetuner(network, num_classes=2, learning_rate=0.2, weight_decay=0.04, schedule="constant", clip_norm=None)
    tuner.fit(domains["source"], epochs=10, batch_size=20, run=False)
    return tuner


def _accuracy(tuner, pair):
    return float((tuner.predict_proba(pair[0]).argmax(1) == pair[1].numpy()).mean())


def _digest(tuner):
    return [tensor_digest(value) for value in tuner.model.state_dict().values()]


def test_a_half_turn_is_followed_and_labels_of_the_way_are_not_read(tuner, domains):
    assert _accuracy(tuner, domains["target"]) < 0.1
    wrong = domains["way"][0], 1 - domains["way"][1]
    path = adapt(tuner, GradualSelfTraining(**QUICK), domains["source"], domains["target"], [wrong], batch_size=20)
    assert _accuracy(tuner, domains["target"]) > 0.95
    assert path.stopped is None and len(path) == 10 + 2
    assert all(step.kept == step.samples - step.samples // 10 for step in path.steps)
    assert [step.name for step in path.steps] == ["intermediate 1"] * 10 + ["target"] * 2
    assert all(step.position is None and step.mixing is None for step in path.steps)  # a line sees nothing of a turn
    assert len(str(path).splitlines()) == 1 + 12


def test_soft_labels_are_learned_too(tuner, domains):
    path = adapt(
        tuner,
        GradualSelfTraining(labels="soft", largest_disagreement=1.0, **QUICK),
        domains["source"],
        domains["target"],
        [domains["way"]],
    )
    assert path.stopped is None and all(step.changed is not None for step in path.steps)


def test_the_same_call_gives_the_same_bits(tuner, domains):
    copies = [Finetuner(tuner.model, learning_rate=0.2, weight_decay=0.04) for _ in range(2)]
    for copy in copies:
        adapt(copy, GradualSelfTraining(epochs=1), domains["source"], domains["target"][0], [domains["way"][0][:100]])
    assert _digest(copies[0]) == _digest(copies[1]) != _digest(tuner)


def test_a_way_is_found_in_a_pool(tuner, domains, generator):
    """A quarter turn: of a half one the ends are the same samples."""
    way, target = _turning(torch.linspace(0, 85, 600), generator), _turning(torch.full((100,), 85.0), generator)
    order = torch.randperm(600, generator=generator)
    parts = [TensorDataset(part) for part in way[0][order].split(300)]
    pool = torch.utils.data.ConcatDataset([_Inputs(part) for part in parts])
    before = _accuracy(tuner, target)
    path = adapt(tuner, GradualSelfTraining(epochs=3), domains["source"], target[0], pool=pool, batch_size=20)
    assert _accuracy(tuner, target) > 0.95 > 0.8 > before
    assert sum(step.samples for step in path.steps if step.name == "pool") == 600


class _Inputs(torch.utils.data.Dataset):
    """A dataset without targets."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return self.dataset[index][0]


def test_what_is_left_of_a_pool_is_ordered_anew_from_where_the_walk_is(tuner, domains, monkeypatch):
    order, seen = gradual.ORDERS["geodesic"], []

    def looked_at(source, target, pool):
        seen.append((len(pool), float(source.mean())))
        return order(source, target, pool)

    monkeypatch.setitem(adapt.__globals__, "ORDERS", {"geodesic": looked_at})
    method = GradualSelfTraining(epochs=1, largest_disagreement=1.0)
    path = adapt(tuner, method, domains["source"], domains["target"][0], pool=domains["way"], batch_size=20)
    taken = [step.samples for step in path.steps if step.name == "pool"]
    assert [left for left, _ in seen] == [sum(taken[place:]) for place in range(len(taken))]
    assert len({here for _, here in seen}) == len(seen) > 5, "the way was measured from one place twice"


@pytest.mark.parametrize("as_pool", [True, False], ids=["pool", "intermediate"])
def test_a_mixture_is_named_and_not_trained_on(as_pool, tuner, generator):
    source, target = (
        (torch.randn(200, 2, generator=generator) * 0.3 + place, torch.zeros(200)) for place in (0.0, 5.0)
    )
    mixture = torch.cat([source[0][:100], target[0][:100]])
    before = _digest(tuner)
    way = {"pool": mixture} if as_pool else {"intermediate": [mixture]}
    with pytest.warns(NotGradualWarning, match="mixture of samples like the source's"):
        path = adapt(tuner, GradualSelfTraining(epochs=1), source[0], target[0], **way)
    assert _digest(tuner) == before and "mixture" in str(path)


def test_a_gap_is_named_and_passed_where_that_is_asked_for(tuner, generator):
    source, target = (torch.randn(200, 2, generator=generator) * 0.3 + place for place in (0.0, 5.0))
    settings = {"epochs": 1, "largest_disagreement": 1.0}
    with pytest.warns(NotGradualWarning, match=r"of the whole way from the window before \(largest_step=0.75\)"):
        path = adapt(tuner, GradualSelfTraining(**settings), source, target, [target])
    assert path.steps[-1].changed is None
    with pytest.warns(NotGradualWarning, match="goes on"):
        path = adapt(tuner, GradualSelfTraining(at_break="go_on", **settings), source, target, [target])
    assert path.stopped is None and path.steps[-1].changed is not None


# --- at the door -------------------------------------------------------------------------------------------------


def test_the_record_comes_back_from_json():
    method = GradualSelfTraining(trim=0.2, labels="soft", window=100, order="domain_score")
    assert method_from(record_of(method)) == method
    assert METHODS["gradual_self_training"] is GradualSelfTraining and GradualSelfTraining.family == "gradual"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"trim": 1.0}, ConfigurationError, "trim=1.0; it is the share that is left out"),
        ({"labels": "hrad"}, UnknownNameError, "closest: hard"),
        ({"order": "geodesics"}, UnknownNameError, "closest: geodesic"),
        ({"epochs": 0}, ConfigurationError, "epochs=0"),
        ({"window": 0}, ConfigurationError, "window=0"),
        ({"agreeing": 2.0}, ConfigurationError, "agreeing=2.0; it is a share"),
        ({"at_break": "halt"}, ConfigurationError, "possible: 'stop', 'go_on'"),
    ],
)
def test_wrong_settings_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        GradualSelfTraining(**settings)


@pytest.mark.parametrize("both", [True, False])
def test_something_has_to_lie_between(both, tuner, domains):
    way = {"intermediate": [domains["way"]], "pool": domains["way"]} if both else {}
    with pytest.raises(ConfigurationError, match=r"give intermediate=\[…\], in their order, or pool=…"):
        adapt(tuner, GradualSelfTraining(), domains["source"], domains["target"], **way)


def test_too_few_samples_are_named_and_the_model_stays(tuner, domains):
    before = _digest(tuner)
    with pytest.raises(EmptyDatasetError, match="intermediate 1 has 2 samples"):
        adapt(tuner, GradualSelfTraining(), domains["source"], domains["target"], [domains["way"][0][:2]])
    assert _digest(tuner) == before


def test_a_model_of_values_is_refused(domains):
    tuner = Finetuner(nn.Sequential(nn.Flatten(), nn.Linear(2, 1)), num_classes=1, loss="mse")
    with pytest.raises(ConfigurationError, match="this model does regression"):
        adapt(tuner, GradualSelfTraining(), domains["source"], domains["target"], [domains["way"]])
