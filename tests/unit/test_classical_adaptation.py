"""Classical methods on features: against skada's own pipelines, closed forms, and the head that takes up the map."""

from __future__ import annotations

import sys
import warnings

import numpy
import pytest
import scipy.linalg
import torch
from scipy.optimize import minimize
from torch import nn

from neurenix.data import ArrayDataset
from neurenix.errors import ConfigurationError, LabelMismatchError, MissingPackageError, NeurenixError, NonFiniteError
from neurenix.transfer import Finetuner, heads
from neurenix.transfer.adaptation import METHODS, DomainAdapter, methods
from neurenix.transfer.adaptation.method import method_from, record_of
from neurenix.transfer.adaptation.methods import classical
from neurenix.transfer.adaptation.methods.classical.kliep import kernel_shares
from neurenix.transfer.adaptation.methods.classical.transfer_components import transfer_directions

skada = pytest.importorskip("skada")
CLASSICAL = [name for name, method in METHODS.items() if method.family == "classical"]
SHIFTS = ("covariate_shift", "target_shift", "conditional_shift", "subspace")
# name -> the same method of skada with the same settings
PEERS = {
    "feature_coral": lambda: skada.CORALAdapter(),
    "transport": lambda: skada.OTMappingAdapter(),
    "sinkhorn_transport": lambda: skada.EntropicOTMappingAdapter(tol=1e-8),
    "class_transport": lambda: skada.ClassRegularizerOTMappingAdapter(tol=1e-8),
    "linear_transport": lambda: skada.LinearOTMappingAdapter(),
    "subspace_alignment": lambda: skada.SubspaceAlignmentAdapter(random_state=0),
    "gaussian_ratio": lambda: skada.GaussianReweightAdapter(),
    "kernel_mean_matching": lambda: skada.KMMReweightAdapter(),
    "neighbour_ratio": lambda: skada.NearestNeighborReweightAdapter(),
    "target_shift": lambda: skada.MMDTarSReweightAdapter(gamma=0.5, reg=1e-6),
}
# settings that are skada's, where ours differ by default
THEIRS = {
    "sinkhorn_transport": {"smoothing": 1.0, "scaling": None},
    "class_transport": {"smoothing": 1.0, "class_weight": 0.1, "scaling": None},
}
# what is our own, since skada's is not what its paper says; see the methods
OWN = {"density_ratio", "kliep", "transfer_components"}


def toy(shift):
    """(source (n, 2), labels (n,), target (m, 2), labels of the target (m,)), float64 and int64."""
    from skada.datasets import make_shifted_datasets

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = make_shifted_datasets(20, 20, shift=shift, noise=0.3, random_state=0)
    features, labels, domains = (torch.from_numpy(numpy.asarray(part)) for part in found)
    here = domains > 0
    return features[here].double(), labels[here].long(), features[~here].double(), labels[~here].long()


def _accuracy(head, features, labels):
    weight, bias = head
    return float(((features @ weight.T + bias).argmax(1) == labels).double().mean())


def test_every_method_has_a_peer_or_a_reason():
    assert set(CLASSICAL) == set(PEERS) | OWN


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", PEERS)
def test_features_weights_and_predictions_are_those_of_skada(name, shift):
    """skada's pipeline of the same adapter and scikit-learn's logistic regression."""
    from sklearn.linear_model import LogisticRegression

    source, labels, target, truth = toy(shift)
    method = METHODS[name](**THEIRS.get(name, {}))
    features = numpy.concatenate([source, target])
    classes = numpy.concatenate([labels, numpy.full(len(target), -1)])
    domains = numpy.concatenate([numpy.ones(len(source), int), numpy.full(len(target), -2)])
    adapted = method.adapt_features(source, labels, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of scikit-learn, about skada's neighbours
        found = PEERS[name]().fit_transform(features, classes, sample_domain=domains)
    if isinstance(found, tuple):
        theirs = found[1]["sample_weight"][: len(source)]
        assert numpy.allclose(adapted.weights, theirs / theirs.mean(), rtol=1e-6)
        peer = LogisticRegression(max_iter=5000, tol=1e-7).fit(source, labels, sample_weight=adapted.weights)
        predicted = peer.predict(target)
    else:
        assert numpy.allclose(adapted.source, found[: len(source)], atol=1e-9) and adapted.weights is None
        moved = target if adapted.target_map is None else adapted.target_map(target)
        assert numpy.allclose(moved, found[len(source) :], atol=1e-9)
        pipeline = skada.make_da_pipeline(PEERS[name](), LogisticRegression(max_iter=5000, tol=1e-7))
        pipeline.fit(features, classes, sample_domain=domains)
        predicted = pipeline.predict(target.numpy(), sample_domain=numpy.full(len(target), -2))
    weight, bias = classical.adapted_head(method, source, labels, target, 2)
    ours = (target @ weight.T + bias).argmax(1).numpy()
    assert (ours == predicted).mean() == 1.0
    assert (ours == truth.numpy()).mean() >= (predicted == truth.numpy()).mean()


@pytest.mark.parametrize("name", CLASSICAL)
def test_the_head_takes_up_the_map_exactly(name, generator):
    source, target = torch.randn(60, 5, generator=generator), 2 * torch.randn(50, 5, generator=generator) + 0.3
    labels = torch.arange(60) % 3
    method = METHODS[name]()
    adapted = method.adapt_features(source, labels, target)
    weight, bias = classical.logistic_head(adapted.source, labels, 3, adapted.weights)
    moved = target.double() if adapted.target_map is None else adapted.target_map(target)
    whole, offset = classical.folded(weight, bias, adapted)
    assert whole.shape == (3, 5) and offset.shape == (3,)
    assert torch.allclose(target.double() @ whole.T + offset, moved @ weight.T + bias, atol=1e-9)
    if adapted.weights is not None:
        assert float(adapted.weights.mean()) == pytest.approx(1.0) and 1 <= adapted.effective_samples <= 60


@pytest.mark.parametrize("name", CLASSICAL)
def test_the_same_call_gives_the_same_bits_and_changes_nothing(name, generator):
    source, target = torch.randn(40, 4, generator=generator), torch.randn(30, 4, generator=generator) + 0.2
    labels = torch.arange(40) % 2
    before = source.clone(), target.clone()
    first, second = (classical.adapted_head(METHODS[name](), source, labels, target, 2) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert torch.equal(source, before[0]) and torch.equal(target, before[1])


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_record_comes_back_from_json(name):
    assert method_from(record_of(METHODS[name]())) == METHODS[name]()


# --- formulas ----------------------------------------------------------------------------------------------------


def test_feature_coral_gives_the_source_the_targets_covariance(generator):
    source, target = torch.randn(500, 3, generator=generator), torch.randn(400, 3, generator=generator)
    target = target @ torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.5, 0.3]])
    adapted = methods.FeatureCORAL(shrinkage=0.0).adapt_features(source, torch.zeros(500).long(), target)
    assert torch.allclose(torch.cov(adapted.source.T, correction=0), torch.cov(target.double().T, correction=0))


def test_linear_transport_is_the_map_between_gaussians(generator):
    """Of one dimension: x -> μ_t + (σ_t / σ_s) (x - μ_s)."""
    source, target = torch.randn(300, 1, generator=generator) + 1, 3 * torch.randn(200, 1, generator=generator) - 2
    adapted = methods.LinearTransport().adapt_features(source, torch.zeros(300).long(), target)
    scale = target.double().std(correction=0) / source.double().std(correction=0)
    assert torch.allclose(
        adapted.source, target.double().mean() + scale * (source.double() - source.double().mean()), atol=1e-6
    )


@pytest.mark.filterwarnings("ignore:Numerical errors were encountered")  # POT's, of the ridge that is too small
def test_linear_transport_of_features_that_vary_together(generator):
    """Half of the features say what the others do, so that some directions have no variance in 300 samples."""
    source, target = torch.randn(300, 4, generator=generator) + 1, 2 * torch.randn(200, 4, generator=generator)
    given = source.repeat(1, 2), torch.zeros(300).long(), target.repeat(1, 2)
    adapted = methods.LinearTransport().adapt_features(*given).source
    assert torch.allclose(adapted.mean(0), given[2].double().mean(0), atol=1e-6)
    assert torch.allclose(adapted.std(0), given[2].double().std(0), rtol=0.02)
    with pytest.raises(NonFiniteError, match="ridge=1e-08"):
        methods.LinearTransport(ridge=1e-8).adapt_features(*given)


def test_transport_of_points_on_a_line_keeps_their_order():
    source, target = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[12.0], [10.0], [11.0]])
    adapted = methods.Transport().adapt_features(source, torch.tensor([0, 1, 1]), target)
    assert adapted.source.flatten().tolist() == pytest.approx([10.0, 11.0, 12.0])


def test_transfer_directions_solve_the_problem_of_the_paper(generator):
    """Eigenvectors of (K L K + μ I)⁻¹ K H K by a dense solver of SciPy, in as many unknowns as samples."""
    source, target = (torch.randn(n, 4, generator=generator).double() + shift for n, shift in ((12, 0.0), (9, 1.0)))
    samples = torch.cat([source, target]).numpy()
    kernel, signs = samples @ samples.T, numpy.r_[numpy.full(12, 1 / 12), numpy.full(9, -1 / 9)]
    centre = numpy.eye(21) - 1 / 21
    matrix = numpy.linalg.solve(
        kernel @ numpy.outer(signs, signs) @ kernel + 0.5 * numpy.eye(21), kernel @ centre @ kernel
    )
    values, vectors = scipy.linalg.eig(matrix)
    theirs = kernel @ vectors[:, numpy.argsort(-values.real)[:3]].real
    ours = samples @ transfer_directions(source, target, 3, 0.5).numpy()
    correlations = [abs(numpy.corrcoef(ours[:, column], theirs[:, column])[0, 1]) for column in range(3)]
    assert correlations == pytest.approx([1.0] * 3, abs=1e-8)
    assert ours.std(0) == pytest.approx(numpy.ones(3))


@pytest.mark.parametrize("name", ["density_ratio", "gaussian_ratio", "kliep"])
def test_density_ratios_are_those_of_two_gaussians(name, generator):
    """log N(x; 1, 1) - log N(x; 0, 1) = x - ½."""
    source, target = (torch.randn(800, 1, generator=generator).double() + place for place in (0.0, 1.0))
    adapted = METHODS[name]().adapt_features(source, torch.zeros(800).long(), target)
    exact = (source.flatten() - 0.5).exp()
    assert numpy.corrcoef(adapted.weights, exact / exact.mean())[0, 1] > 0.85
    weighted = float((adapted.weights * source.flatten()).mean())
    assert weighted == pytest.approx(float(target.mean()), abs=0.15)


def test_skadas_discriminator_is_upside_down():
    """The reason why density_ratio is ours; where this fails, theirs was mended."""
    source, labels, target, _ = toy("covariate_shift")
    features = numpy.concatenate([source, target])
    domains = numpy.concatenate([numpy.ones(len(source), int), numpy.full(len(target), -2)])
    theirs = skada.DiscriminatorReweightAdapter().fit_transform(features, sample_domain=domains)[1]["sample_weight"]
    ours = methods.DensityRatio().adapt_features(source, labels, target).weights
    assert numpy.corrcoef(numpy.log(theirs[: len(source)]), ours.log().numpy())[0, 1] < -0.999


def test_kliep_finds_the_optimum_of_its_problem(generator):
    """Against SciPy's solver of constrained problems."""
    at_target, at_source = (torch.rand(n, 5, generator=generator).double() + 0.05 for n in (40, 30))
    shares = kernel_shares(at_target, at_source, 5000)
    means = at_source.mean(0).numpy()
    best = minimize(
        lambda a: -numpy.log(at_target.numpy() @ a).mean(),
        numpy.ones(5) / means.sum(),
        bounds=[(0, None)] * 5,
        constraints={"type": "eq", "fun": lambda a: means @ a - 1},
        tol=1e-12,
    )
    assert float(shares @ torch.from_numpy(means)) == pytest.approx(1.0)
    assert float((at_target @ shares).log().mean()) == pytest.approx(-best.fun, abs=1e-5)


def test_a_logistic_head_is_that_of_scikit_learn_and_weights_are_repetitions(generator):
    from sklearn.linear_model import LogisticRegression

    features, labels = torch.randn(80, 3, generator=generator).double(), torch.arange(80) % 2
    peer = LogisticRegression(tol=1e-10).fit(features, labels)
    weight, bias = classical.logistic_head(features, labels, 2)
    assert numpy.allclose((features @ weight.T + bias).softmax(1), peer.predict_proba(features), atol=1e-4)
    counts = torch.randint(1, 4, (80,), generator=generator)
    weighted = classical.logistic_head(features, labels, 2, counts.double())
    repeated = classical.logistic_head(features.repeat_interleave(counts, 0), labels.repeat_interleave(counts), 2)
    assert torch.allclose(weighted[0], repeated[0], atol=1e-3)


@pytest.mark.parametrize(
    ("shift", "fitting"),
    [
        (
            "covariate_shift",
            [
                *(methods.FeatureCORAL, methods.LinearTransport, methods.Transport, methods.SinkhornTransport),
                *(methods.ClassTransport, methods.GaussianRatio, methods.KernelMeanMatching, methods.KLIEP),
                *(methods.NeighbourRatio, methods.SubspaceAlignment, lambda: methods.TransferComponents(components=1)),
            ],
        ),
        (
            "conditional_shift",
            [
                *(methods.FeatureCORAL, methods.LinearTransport, methods.Transport, methods.SinkhornTransport),
                *(methods.ClassTransport, methods.SubspaceAlignment),
            ],
        ),
        ("target_shift", [methods.TargetShift, methods.KLIEP, methods.KernelMeanMatching, methods.DensityRatio]),
    ],
)
def test_methods_mend_the_shifts_that_they_are_for(shift, fitting):
    source, labels, target, truth = toy(shift)
    alone = _accuracy(classical.logistic_head(source, labels, 2), target, truth)
    for method in fitting:
        head = classical.adapted_head(method(), source, labels, target, 2)
        assert _accuracy(head, target, truth) > alone + 0.01, method


@pytest.mark.parametrize("name", ["sinkhorn_transport", "class_transport"])
def test_plans_do_not_depend_on_the_size_of_features(name, generator):
    """Features of a network have norms of 20 and more: exp(-d²) of those is nothing."""
    source, target = torch.randn(60, 8, generator=generator), torch.randn(50, 8, generator=generator) + 0.5
    labels = torch.arange(60) % 3
    small = METHODS[name]().adapt_features(source, labels, target).source
    large = METHODS[name]().adapt_features(100 * source, labels, 100 * target).source
    assert torch.allclose(100 * small, large, rtol=1e-4, atol=1e-4)
    with pytest.raises((ConfigurationError, NonFiniteError)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        METHODS[name](scaling=None).adapt_features(100 * source, labels, 100 * target)


def test_more_features_than_samples_are_told(generator):
    source, target = torch.randn(40, 200, generator=generator).relu(), torch.randn(30, 200, generator=generator).relu()
    for name in CLASSICAL:
        try:
            adapted = METHODS[name]().adapt_features(source, torch.arange(40) % 2, target)
        except NeurenixError:
            continue
        assert bool(adapted.source.isfinite().all()), name


def test_several_neighbours_count_each(generator):
    source, target = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.1], [0.2], [4.0]])
    adapted = methods.NeighbourRatio(neighbours=2).adapt_features(source, torch.tensor([0, 1, 1]), target)
    assert adapted.weights.tolist() == pytest.approx([2 / 2, 3 / 2, 1 / 2])


# --- in a model --------------------------------------------------------------------------------------------------


@pytest.fixture
def shifted(generator):
    """Two classes of points whose second domain is stretched and moved: (pair of the source, pair of the target)."""
    labels = torch.arange(120) % 2
    points = torch.randn(240, 4, generator=generator) * 0.4
    points[:, 0] += 2.0 * labels.repeat(2) - 1
    stretched = points[120:] @ torch.diag(torch.tensor([0.5, 2.0, 1.0, 1.0])) + torch.tensor([1.0, 0.0, 0.0, 0.0])
    return (points[:120], labels), (stretched, labels)


def _network(hidden):
    body = [nn.Flatten(), nn.Linear(4, 6), nn.Tanh()] if hidden else [nn.Flatten()]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*body, nn.Linear(6 if hidden else 4, 2))


@pytest.mark.parametrize("hidden", [True, False])
def test_the_head_of_a_model_is_set_and_nothing_else(hidden, shifted):
    source, target = shifted
    tuner = Finetuner(_network(hidden), num_classes=2, learning_rate=0.05, layer_learning_rates=1.0)
    tuner.fit(source, epochs=5, run=False)
    before = {name: value.clone() for name, value in tuner.model.state_dict().items()}
    alone = tuner.evaluate(target)["accuracy"]
    classical.install_adapted_head(tuner, methods.LinearTransport(), source, (target[0], 1 - target[1]))
    assert tuner.evaluate(target)["accuracy"] > max(0.9, alone + 0.1)
    changed = [name for name, value in tuner.model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) == 2


@pytest.mark.filterwarnings("ignore::neurenix.errors.NegativeTransferWarning")  # its rule is DANN's, see docs/log.md
def test_the_adapter_calls_it_and_reports(shifted):
    source, target = shifted
    adapter = DomainAdapter(_network(False), num_classes=2, method="feature_coral", chooses=False, learning_rate=0.05)
    adapter.tuner.fit(source, epochs=5, run=False)
    alone = adapter.evaluate(target)["accuracy"]
    adapter.fit(source, target[0], run=False)
    assert adapter.evaluate(target)["accuracy"] > 0.9 > alone


def test_names_of_classes_are_those_of_the_model(shifted):
    """The source is given again with its classes in another order."""
    source, target = shifted
    names = numpy.asarray(["left", "right"])
    tuner = Finetuner(_network(False), num_classes=2, learning_rate=0.05)
    tuner.fit(ArrayDataset(source[0], names[source[1]]), epochs=3, run=False)
    again = ArrayDataset(source[0], names[source[1]], classes=["right", "left"])
    classical.install_adapted_head(tuner, methods.LinearTransport(), again, target[0])
    assert (tuner.predict(target[0]) == names[target[1]]).mean() > 0.95


def test_heads_and_tasks_that_have_no_linear_end_are_refused(shifted):
    source, target = shifted
    tuner = Finetuner(_network(False), head=heads.Cosine(num_outputs=2))
    before = {name: value.clone() for name, value in tuner.model.state_dict().items()}
    with pytest.raises(ConfigurationError, match="take heads.Linear or heads.MLP"):
        classical.install_adapted_head(tuner, methods.FeatureCORAL(), source, target[0])
    assert all(torch.equal(value, before[name]) for name, value in tuner.model.state_dict().items())
    values = Finetuner(_network(False), num_classes=1, loss="mse")
    with pytest.raises(ConfigurationError, match="this model does regression"):
        classical.install_adapted_head(values, methods.FeatureCORAL(), source, target[0])


# --- at the door -------------------------------------------------------------------------------------------------


@pytest.fixture
def features(generator):
    return torch.randn(20, 3, generator=generator), torch.arange(20) % 2, torch.randn(15, 3, generator=generator)


@pytest.mark.parametrize("name", CLASSICAL)
def test_wrong_features_and_labels_are_named(name, features):
    source, labels, target = features
    method = METHODS[name]()
    with pytest.raises(LabelMismatchError, match="classical methods are for classification"):
        method.adapt_features(source, labels.float(), target)
    with pytest.raises(ConfigurationError, match="1 source and 15 target samples are too few"):
        method.adapt_features(source[:1], labels[:1], target)
    with pytest.raises(ConfigurationError, match="with the same features"):
        method.adapt_features(source, labels, target[:, :2])
    with pytest.raises(NonFiniteError, match="2 target samples"):
        method.adapt_features(source, labels, torch.cat([target, torch.full((2, 3), torch.nan)]))


def test_a_class_without_samples_is_named(features):
    with pytest.raises(LabelMismatchError, match=r"\[10, 10, 0\] samples"):
        classical.adapted_head(methods.DensityRatio(), *features, 3)


def test_domains_that_do_not_overlap_are_named(features):
    source, labels, target = features
    with pytest.raises(ConfigurationError, match="no source sample lies where the target's are"):
        methods.KLIEP(gamma=1000.0).adapt_features(source, labels, target + 1000)


@pytest.mark.parametrize("package", ["skada", "ot"])
def test_a_missing_package_is_named(package, features, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=r"pip install 'neurenix\[adaptation\]'"):
        methods.FeatureCORAL().adapt_features(*features)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("feature_coral", {"shrinkage": 2.0}, "share from 0 to 1"),
        ("gaussian_ratio", {"shrinkage": -1.0}, "share from 0 to 1"),
        ("transport", {"costs": "manhatten"}, "possible: sqeuclidean"),
        ("transport", {"max_iterations": 0}, "at least 1"),
        ("sinkhorn_transport", {"scaling": "mean"}, "possible: None, median"),
        ("sinkhorn_transport", {"smoothing": 0.0}, "positive"),
        ("class_transport", {"scaling": "max"}, "possible: None, median"),
        ("class_transport", {"regulariser": "l1"}, "possible: lpl1, l1l2"),
        ("linear_transport", {"ridge": -1.0}, "small positive number"),
        ("subspace_alignment", {"components": 0}, "possible: 1 or more"),
        ("transfer_components", {"smoothness": 0.0}, "it is positive"),
        ("density_ratio", {"strength": 0.0}, "it is positive"),
        ("kliep", {"centres": 0}, "both are at least 1"),
        ("kernel_mean_matching", {"largest": 0.0}, "both are positive"),
        ("neighbour_ratio", {"neighbours": 0}, "at least 1"),
        ("target_shift", {"ridge": 0.0}, "both are positive"),
    ],
)
def test_wrong_settings_are_named(kind, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        METHODS[kind](**settings)


def test_more_components_than_there_are_features_are_named(features):
    with pytest.raises(ConfigurationError, match="possible: 1 to 3"):
        methods.SubspaceAlignment(components=4).adapt_features(*features)
