"""Self-supervised, self-training, source-free and test-time terms: numbers from outside, and whom gradients reach."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neurenix.data import Batch
from neurenix.errors import ConfigurationError, EmptyDatasetError, InputMismatchError, NeurenixError
from neurenix.models import PretrainedModel, adopt
from neurenix.transfer.adaptation import METHODS
from neurenix.transfer.adaptation._trains import frozen_beside
from neurenix.transfer.adaptation.method import DomainStep, Inputs, Side, Sizes, Term, TermMethod
from neurenix.transfer.adaptation.methods import (
    ETA,
    SHOT,
    AdaBN,
    Contrastive,
    FixMatch,
    InformationMaximisation,
    MaskedReconstruction,
    MeanTeacher,
    Rotation,
    Tent,
)
from neurenix.transfer.adaptation.methods._information import entropies, information, marginal_entropy
from neurenix.transfer.adaptation.methods._views import (
    cut_out,
    hide_tokens,
    masked,
    moved,
    recoloured,
    span,
    strong_view,
)
from neurenix.transfer.adaptation.methods.contrastive import nt_xent
from neurenix.transfer.adaptation.methods.eta import reliability
from neurenix.transfer.adaptation.methods.fix_match import class_scales, grown, pseudo_label_loss, scaled
from neurenix.transfer.adaptation.methods.masked_reconstruction import coarse, feature_loss, pixel_loss
from neurenix.transfer.adaptation.methods.mean_teacher import consistency, risen
from neurenix.transfer.adaptation.methods.rotation import turned
from neurenix.transfer.adaptation.methods.shot import centroid_labels, weighted_centroids

FEATURES, CLASSES = 6, 4
OURS: dict[str, type[Any]] = {
    name: METHODS[name]
    for name in (
        "rotation",
        "contrastive",
        "masked_reconstruction",
        "fixmatch",
        "mean_teacher",
        "shot",
        "tent",
        "eta",
        "information_maximisation",
    )
}


def small_model() -> PretrainedModel:
    """Images (n, 2, 8, 8) -> six features -> four logits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return adopt(
            nn.Sequential(
                nn.Conv2d(2, FEATURES, 3, padding=1),
                nn.BatchNorm2d(FEATURES),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(FEATURES, CLASSES),
            )
        ).train()


def ask_of(model: PretrainedModel) -> Callable[..., tuple[Tensor, Tensor]]:
    def ask(inputs: Inputs, domain: str = "target") -> tuple[Tensor, Tensor]:
        features = model.embed(inputs)
        return features, model.head(features)

    return ask


def step_of(model: PretrainedModel, source: Tensor, target: Tensor, progress: float = 0.5) -> DomainStep:
    ask = ask_of(model)

    def side(inputs: Tensor, targets: Tensor | None) -> Side:
        features, outputs = ask(inputs) if len(inputs) else (torch.zeros(0, FEATURES), torch.zeros(0, CLASSES))
        return Side(
            inputs=inputs, features=features, outputs=outputs, targets=targets, places=torch.arange(len(inputs))
        )

    labels = torch.zeros(len(source), dtype=torch.long)
    return DomainStep(source=side(source, labels), target=side(target, None), progress=progress, ask=ask)


def begun(method: TermMethod, model: PretrainedModel) -> Term:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        term = method.term(Sizes(features=FEATURES, outputs=CLASSES))
    term.begin(model)
    return term


def images(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 2, 8, 8, generator=generator)


def number(loss: Tensor) -> float:
    return float(loss.detach())


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Terms draw from the global generator, as in the loop, which seeds it before each step."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        yield


# --- every term ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_losses_are_finite_scalars_that_reach_the_model(name: str, generator: torch.Generator) -> None:
    model = small_model()
    model.head.weight.data.mul_(50)  # a confident classifier, so that thresholds let samples through
    term = begun(OURS[name](), model)
    step = step_of(model, images(5, generator), images(6, generator))
    losses = term(step)
    assert losses and all(loss.shape == () and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values(), torch.zeros(())).backward()
    assert model.trunk.module[0].weight.grad.abs().sum() > 0
    own = [parameter.grad for parameter in term.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in own)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("sizes", [(5, 0), (0, 5), (0, 0)])
def test_domains_without_samples_give_finite_losses(
    name: str, sizes: tuple[int, int], generator: torch.Generator
) -> None:
    model = small_model()
    term = begun(OURS[name](), model)
    step = step_of(model, images(sizes[0], generator), images(sizes[1], generator))
    losses = term(step)
    term.end_step(model)
    assert all(torch.isfinite(loss) for loss in losses.values())
    if not sum(sizes):
        assert sum(losses.values()) == 0


@pytest.mark.parametrize("name", ["rotation", "contrastive", "masked_reconstruction", "fixmatch", "mean_teacher"])
def test_changed_samples_leave_running_statistics_alone(name: str, generator: torch.Generator) -> None:
    model = small_model()
    term = begun(OURS[name](), model)
    step = step_of(model, images(5, generator), images(6, generator))
    before = {key: buffer.clone() for key, buffer in model.named_buffers()}
    term(step)
    assert all(torch.equal(buffer, before[key]) for key, buffer in model.named_buffers())


@pytest.mark.parametrize("name", ["rotation", "contrastive", "masked_reconstruction", "fixmatch"])
def test_the_same_seed_gives_the_same_loss(name: str, generator: torch.Generator) -> None:
    model = small_model()
    term = begun(OURS[name](), model)
    step = step_of(model, images(5, generator), images(6, generator))
    losses = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        losses.append(float(sum(term(step).values()).detach()))
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Rotation(domains="source"),
        lambda: Contrastive(temperature=0.0),
        lambda: MaskedReconstruction(share=1.0),
        lambda: MaskedReconstruction(predicts="tokens"),
        lambda: FixMatch(threshold=1.5),
        lambda: MeanTeacher(decay=1.0),
        lambda: SHOT(pseudo_weight=-0.1),
        lambda: Tent(weight=0.0),
        lambda: ETA(margin=-0.1),
        lambda: InformationMaximisation(schedule="sometimes"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: Callable[[], Any]) -> None:
    with pytest.raises(NeurenixError):
        wrong()


# --- views -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "view",
    [
        lambda x: strong_view(x, mirror=True),
        lambda x: masked(x, 0.5, 4)[0],
        lambda x: moved(x, shift=0.2, turn=30.0, zoom=0.3, mirror=True),
        lambda x: recoloured(x, contrast=0.5, brightness=0.5, colour=0.5),
    ],
)
def test_a_view_of_a_normalised_image_is_the_normalised_view(
    view: Callable[[Tensor], Tensor], generator: torch.Generator
) -> None:
    pictures = torch.rand(4, 3, 16, 16, generator=generator)
    scale, shift = torch.tensor([2.0, 4.0, 0.5]).view(3, 1, 1), torch.tensor([-1.0, 0.3, 5.0]).view(3, 1, 1)
    torch.manual_seed(1)
    first = view(pictures * scale + shift)
    torch.manual_seed(1)
    second = view(pictures) * scale + shift
    assert not torch.allclose(first, pictures * scale + shift, atol=0.1)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


def test_without_any_change_an_image_stays_as_it_is(generator: torch.Generator) -> None:
    pictures = images(3, generator)
    still = moved(pictures, shift=0.0, turn=0.0, zoom=0.0, mirror=False)
    torch.testing.assert_close(still, pictures, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(recoloured(pictures, contrast=0.0, brightness=0.0, colour=0.0), pictures)


def test_turning_is_a_rotation_also_of_images_that_are_not_square() -> None:
    """A disc around the middle stays where it is whatever the angle. Farther out the border mirrors it."""
    rows, columns = torch.meshgrid(torch.arange(20) - 9.5, torch.arange(40) - 19.5, indexing="ij")
    disc = ((rows**2 + columns**2).sqrt() - 6).sigmoid().neg()[None, None].repeat(8, 1, 1, 1)
    near = (rows**2 + columns**2).sqrt() < 9
    views = moved(disc, shift=0.0, turn=90.0, zoom=0.0, mirror=True)
    assert not torch.equal(views[0], views[1])
    torch.testing.assert_close(views[:, :, near], disc[:, :, near], atol=0.1, rtol=0)


def test_a_cut_out_square_has_its_size() -> None:
    cut = cut_out(torch.zeros(50, 1, 20, 20), 0.5)
    assert cut.flatten(1).sum(1).max() == 100  # where it lies inside
    assert cut.flatten(1).any(1).all()
    assert span(torch.zeros(9, 2, 50), 0.2).sum((1, 2)).tolist() == [10] * 9


def test_tokens_are_hidden_but_never_the_first() -> None:
    mask = torch.ones(200, 20, dtype=torch.long)
    mask[:, 15:] = 0
    hidden = hide_tokens({"input_ids": torch.arange(4000).view(200, 20), "attention_mask": mask}, 0.3)
    assert hidden["attention_mask"][:, 0].all() and not hidden["attention_mask"][:, 15:].any()
    assert abs(float(hidden["attention_mask"][:, 1:15].float().mean()) - 0.7) < 0.03
    assert torch.equal(hidden["input_ids"], torch.arange(4000).view(200, 20))
    assert mask[:, :15].all()  # what was given is left alone


@pytest.mark.parametrize(
    "inputs",
    [torch.zeros(3, 5, dtype=torch.long), torch.zeros(2, 3, 4, 8, 8), {"pixels": torch.zeros(2, 3)}],
)
def test_samples_of_which_there_are_no_views_are_refused(inputs: Inputs) -> None:
    for view in (lambda: strong_view(inputs, False), lambda: masked(inputs, 0.5, 4)):
        with pytest.raises(InputMismatchError, match="no other view"):
            view()


@pytest.mark.parametrize("name", ["contrastive", "masked_reconstruction", "fixmatch"])
@pytest.mark.parametrize("kind", ["texts", "vectors", "series"])
def test_texts_vectors_and_series_can_be_adapted_too(name: str, kind: str, generator: torch.Generator) -> None:
    weights = nn.Parameter(torch.randn(12, FEATURES, generator=generator))
    inputs: Inputs = torch.randn((5, 12) if kind == "vectors" else (5, 12, 30), generator=generator)
    if kind == "texts":
        mask = torch.ones(5, 9)
        inputs = {"input_ids": torch.randint(12, (5, 9), generator=generator), "attention_mask": mask}

    def ask(asked: Inputs, domain: str = "target") -> tuple[Tensor, Tensor]:
        if isinstance(asked, Tensor):
            features = (asked if asked.ndim == 2 else asked.mean(2)) @ weights
        else:
            features = (weights[asked["input_ids"]] * asked["attention_mask"][:, :, None]).mean(1)
        return features, features[:, :CLASSES] * 50

    features, outputs = ask(inputs)
    source, target = (
        Side(inputs=inputs, features=features, outputs=outputs, targets=targets, places=torch.arange(5))
        for targets in (torch.arange(5) % CLASSES, None)
    )
    term = begun(OURS[name](), small_model())
    losses = term(DomainStep(source=source, target=target, progress=0.5, ask=ask))
    sum(losses.values()).backward()
    assert weights.grad.abs().sum() > 0


# --- rotation --------------------------------------------------------------------------------------------------


def test_turns_are_quarter_turns(generator: torch.Generator) -> None:
    pictures = images(4, generator)
    ways = turned(pictures, torch.tensor([0, 1, 2, 3]))
    assert torch.equal(ways[0], pictures[0])
    assert torch.equal(ways[1], pictures[1].transpose(1, 2).flip(1))  # counter-clockwise, rows downwards
    assert torch.equal(ways[2], pictures[2].flip(1, 2))
    assert torch.equal(turned(turned(pictures, torch.full((4,), 3)), torch.full((4,), 1)), pictures)


def test_a_classifier_of_turns_that_knows_nothing_loses_log_4(generator: torch.Generator) -> None:
    model = small_model()
    term = begun(Rotation(weight=2.0), model)
    nn.init.zeros_(term.classifier.weight), nn.init.zeros_(term.classifier.bias)
    loss = term(step_of(model, images(5, generator), images(6, generator)))["rotation"]
    assert number(loss) == pytest.approx(2 * math.log(4))


def test_rotation_refuses_what_cannot_be_turned(generator: torch.Generator) -> None:
    with pytest.raises(InputMismatchError, match="square"):
        turned(torch.zeros(2, 1, 4, 5), torch.tensor([0, 1]))
    model = small_model()
    step = step_of(model, images(2, generator), images(2, generator))
    text = Side(
        inputs={"input_ids": torch.zeros(2, 3), "attention_mask": torch.ones(2, 3)},
        features=step.target.features,
        outputs=step.target.outputs,
        targets=None,
        places=step.target.places,
    )
    asked = DomainStep(source=text, target=text, progress=0.0, ask=step.ask)
    with pytest.raises(InputMismatchError, match="a mapping of input_ids, attention_mask"):
        begun(Rotation(), model)(asked)
    with pytest.raises(InputMismatchError, match="predicts='features'"):
        begun(MaskedReconstruction(predicts="pixels"), model)(asked)


# --- contrastive -----------------------------------------------------------------------------------------------


def test_nt_xent_is_that_of_the_paper_term_by_term(generator: torch.Generator) -> None:
    first, second = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    views, total = [*first, *second], 0.0
    for i, view in enumerate(views):
        cosines = [float(functional.cosine_similarity(view, other, dim=0)) for other in views]
        denominator = sum(math.exp(cosine / 0.3) for k, cosine in enumerate(cosines) if k != i)
        total -= math.log(math.exp(cosines[(i + 5) % 10] / 0.3) / denominator)
    assert float(nt_xent(first, second, 0.3)) == pytest.approx(total / 10)


def test_nt_xent_at_its_ends() -> None:
    assert float(nt_xent(torch.ones(4, 3), torch.ones(4, 3), 0.5)) == pytest.approx(math.log(7))
    assert float(nt_xent(torch.ones(1, 3), -torch.ones(1, 3), 0.5)) == 0
    assert float(nt_xent(torch.eye(3), torch.eye(3), 0.01)) == pytest.approx(0, abs=1e-6)


# --- masked reconstruction -------------------------------------------------------------------------------------


def test_only_hidden_cells_are_told() -> None:
    told, brightness = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    hidden = torch.tensor([[[True, False], [True, False]]])
    assert float(pixel_loss(told, brightness, hidden)) == pytest.approx((1 + 9) / 2)
    assert float(pixel_loss(told, brightness, torch.zeros_like(hidden))) == 0


def test_coarse_brightness_has_no_unit(generator: torch.Generator) -> None:
    picture = torch.zeros(1, 2, 4, 4)
    picture[:, :, :2, :2] = 4.0  # cells of 4, 0, 0, 0: mean 1, standard deviation √3
    root = math.sqrt(3)
    expected = torch.tensor([[[3 / root, -1 / root], [-1 / root, -1 / root]]])
    torch.testing.assert_close(coarse(picture, 2), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(coarse(picture * 5 - 2, 2), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(coarse(torch.ones(1, 3, 4, 4), 2), torch.zeros(1, 2, 2))


def test_features_are_told_in_their_own_spread() -> None:
    features = torch.tensor([[1.0, 3.0]])  # normalised: -1, 1
    assert float(feature_loss(torch.tensor([[-1.0, 1.0]]), features)) == pytest.approx(0, abs=1e-4)
    assert float(feature_loss(torch.zeros(1, 2), features * 10 + 3)) == pytest.approx(1, abs=1e-3)


def test_cells_of_an_image_are_hidden_whole() -> None:
    pictures = torch.arange(64.0).view(1, 1, 8, 8)
    rest, chosen = masked(pictures, 0.5, 4)
    assert isinstance(rest, Tensor) and chosen is not None
    spread = chosen.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
    assert (rest[spread] == 31.5).all() and torch.equal(rest[~spread], pictures[~spread])


# --- pseudo-labels and consistency -----------------------------------------------------------------------------


def test_only_sure_answers_are_labels() -> None:
    weak = torch.tensor([[0.97, 0.03], [0.6, 0.4], [0.05, 0.95]], requires_grad=True)
    strong = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]).log().requires_grad_()
    loss = pseudo_label_loss(strong, weak, 0.9)
    assert number(loss) == pytest.approx((math.log(2) - math.log(0.8)) / 3)
    loss.backward()
    assert weak.grad is None
    assert torch.equal(strong.grad[1], torch.zeros(2)) and (strong.grad[0] != 0).all()


def test_weights_grow() -> None:
    assert [grown(progress, 0.2) for progress in (0.0, 0.1, 0.2, 0.9)] == pytest.approx([0, 0.5, 1, 1])
    assert grown(0.0, 0.0) == risen(0.0, 0.0) == 1
    assert [risen(progress, 0.4) for progress in (0.0, 0.2, 0.4, 0.8)] == pytest.approx(
        [math.exp(-5), math.exp(-1.25), 1, 1]
    )


def test_consistency_counts_what_the_teacher_is_sure_of() -> None:
    teacher, student = torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log(), torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
    assert float(consistency(student, teacher, 0.0)) == pytest.approx((2 * 0.16 + 2 * 0.01) / 2)
    assert float(consistency(student, teacher, 0.8)) == pytest.approx(0.16)


def test_the_teacher_is_the_exact_average_of_the_weights(generator: torch.Generator) -> None:
    model = small_model()
    model.head.bias.requires_grad_(False)
    term = begun(MeanTeacher(decay=0.6), model)
    expected: dict[str, Tensor] = {}
    for step in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        term.end_step(model)
        decay = min(0.6, 1 - 1 / (step + 1))
        for name, parameter in model.named_parameters():
            before = expected.get(name, parameter.detach())
            expected[name] = decay * before + (1 - decay) * parameter.detach()
    kept = {name.replace("/", "."): buffer for name, buffer in term.named_buffers() if name != "steps"}
    assert set(kept) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, average in kept.items():
        torch.testing.assert_close(average, expected[name], rtol=1e-5, atol=1e-6)


def test_the_teacher_answers_with_its_own_weights_and_the_student_keeps_its(generator: torch.Generator) -> None:
    model = small_model()
    term = begun(MeanTeacher(weight=1.0, rampup=0.0, drop=0.0), model)
    inputs = images(6, generator)
    term.end_step(model)
    teacher = ask_of(model)(inputs)[1].softmax(1).detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    step = step_of(model, inputs[:0], inputs)
    loss = term(step)["consistency"]
    expected = (step.target.outputs.softmax(1) - teacher).square().sum(1).mean()
    assert number(loss) == pytest.approx(number(expected), rel=1e-4) and loss > 0
    loss.backward()  # finds the weights that the student's pass had
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    other = step_of(small_model_like(model), inputs[:0], inputs)
    (other.target.outputs.softmax(1) - teacher).square().sum(1).mean().backward()
    torch.testing.assert_close(model.trunk.module[0].weight.grad, last_model[0].trunk.module[0].weight.grad)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_in_fewer_digits_the_teacher_still_answers_with_its_own_weights(
    precision: torch.dtype, generator: torch.Generator
) -> None:
    """Autocast keeps the student's weights in fewer digits by the names of parameters, which the teacher's share."""
    model = small_model()
    term = begun(MeanTeacher(weight=1.0, rampup=0.0, drop=0.0, balance=0.0), model)
    inputs = images(6, generator)
    term.end_step(model)
    for name, buffer in term.named_buffers():
        if name != "steps":
            buffer.zero_()
    with torch.autocast("cpu", dtype=precision):
        step = step_of(model, inputs[:0], inputs)
        loss = term(step)["consistency"]
    uniform = (step.target.outputs.float().softmax(1) - 1 / CLASSES).square().sum(1).mean()
    assert number(loss) == pytest.approx(number(uniform), rel=1e-2)
    loss.backward()
    assert all(bool(parameter.grad.any()) for parameter in model.head.parameters() if parameter.grad is not None)


last_model: list[PretrainedModel] = []


def small_model_like(model: PretrainedModel) -> PretrainedModel:
    twin = small_model()
    twin.load_state_dict(model.state_dict())
    last_model[:] = [twin]
    return twin


def test_what_terms_remember_comes_back_from_a_checkpoint(generator: torch.Generator) -> None:
    model = small_model()
    for method in (MeanTeacher(), SHOT(), ETA()):
        term = begun(method, model)
        term.begin_epoch(0, lambda: (torch.rand(9, FEATURES), torch.randn(9, CLASSES), torch.arange(9)))
        term(step_of(model, images(0, generator), images(6, generator)))
        term.end_step(model)
        again = begun(method, model)
        again.load_state_dict(term.state_dict())
        assert again.state_dict().keys() == term.state_dict().keys()
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in term.state_dict().items())


def test_a_head_that_does_not_end_with_its_linear_layer_is_refused(generator: torch.Generator) -> None:
    model = small_model()
    model.head = nn.Sequential(model.head, nn.Softmax(1))
    term = begun(MeanTeacher(), model)
    with pytest.raises(ConfigurationError, match="something follows"):
        term(step_of(model, images(2, generator), images(3, generator)))


# --- information, SHOT, Tent, ETA ------------------------------------------------------------------------------


def test_entropies_in_closed_form() -> None:
    even, sure = torch.zeros(3, 5), 100 * torch.eye(5)
    assert entropies(even).tolist() == pytest.approx([math.log(5)] * 3)
    assert entropies(sure).tolist() == pytest.approx([0] * 5, abs=1e-6)
    assert float(marginal_entropy(sure)) == pytest.approx(math.log(5))
    assert float(information(sure)) == pytest.approx(-math.log(5))
    assert float(information(even)) == pytest.approx(0, abs=1e-6)
    halves = torch.tensor([[0.25, 0.75]]).log()
    reference = float(torch.distributions.Categorical(probs=torch.tensor([0.25, 0.75])).entropy())
    assert entropies(halves).tolist() == pytest.approx([reference])


def test_information_is_the_mutual_information_of_sample_and_answer(generator: torch.Generator) -> None:
    logits = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    joint = logits.softmax(1) / 7
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    assert float(-information(logits)) == pytest.approx(float((joint * (joint / independent).log()).sum()))


def test_shot_centroids_by_hand() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 2.0], [4.0, 2.0]])
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.75, 0.25, 0.0]])
    # class 0: (1·(2,0) + ¼·(0,2) + ¾·(4,2)) / 2; class 1: (¾·(0,2) + ¼·(4,2)) / 1; class 2: nothing
    expected = torch.tensor([[2.5, 1.0], [1.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(weighted_centroids(features, weights), expected)


def test_shot_labels_come_from_where_samples_lie() -> None:
    """A sample that the classifier has wrong, but that lies among the others, gets their label; class 2 has none."""
    features = torch.tensor([[5.0, 0.1], [4.0, 0.0], [6.0, 0.2], [0.0, 3.0], [0.1, 4.0]])
    logits = torch.tensor([[4.0, 0, -9], [4.0, 0, -9], [0.0, 0.5, -9], [0.0, 4, -9], [0.0, 4, -9]])
    assert centroid_labels(features, logits).tolist() == [0, 0, 0, 1, 1]
    assert logits.argmax(1).tolist() == [0, 0, 1, 1, 1]


def test_shot_learns_labels_by_place_and_leaves_the_classifier_to_be_frozen(generator: torch.Generator) -> None:
    model = small_model()
    term = begun(SHOT(weight=0.0, pseudo_weight=1.0), model)
    term.pseudo_labels = torch.tensor([3, 2, 1, 0])
    step = step_of(model, images(0, generator), images(2, generator))
    target = step.target
    side = Side(
        inputs=target.inputs,
        features=target.features,
        outputs=target.outputs,
        targets=None,
        places=torch.tensor([3, 1]),
    )
    loss = term(DomainStep(source=step.source, target=side, progress=0.0, ask=step.ask))["pseudo_labels"]
    assert number(loss) == pytest.approx(number(functional.cross_entropy(target.outputs, torch.tensor([0, 2]))))
    assert (SHOT.trains, SHOT.uses_source, SHOT.reads_inputs) == ("body", False, None)


@pytest.mark.parametrize("method", [Tent(), ETA()])
def test_a_model_without_norms_is_named(method: TermMethod) -> None:
    bare = adopt(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, CLASSES)))
    with pytest.raises(ConfigurationError, match="has none"):
        frozen_beside(bare, method.trains)


def test_tent_is_the_mean_entropy(generator: torch.Generator) -> None:
    model = small_model()
    step = step_of(model, images(0, generator), images(6, generator))
    reference = torch.distributions.Categorical(logits=step.target.outputs).entropy().mean()
    assert number(begun(Tent(), model)(step)["entropy"]) == pytest.approx(number(reference), rel=1e-5)


def test_reliability_in_closed_form() -> None:
    logits = torch.tensor([[100.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert reliability(logits, 0.4).tolist() == pytest.approx([math.exp(0.4 * math.log(4)), 0])


def test_eta_leaves_out_what_is_answered_as_most_are() -> None:
    term = begun(ETA(similarity=1.0, momentum=0.5), small_model())
    sure = torch.tensor([[20.0, 0, 0, 0], [20.0, 0, 0, 0], [20.0, 0, 0, 0], [0, 20.0, 0, 0]]).requires_grad_()

    def loss() -> Tensor:
        side = Side(inputs=torch.zeros(4, 1), features=sure, outputs=sure, targets=None, places=torch.arange(4))
        return term(DomainStep(source=side, target=side, progress=0.0, ask=lambda *_: (sure, sure)))["entropy"]

    loss()
    assert torch.equal(term.mean_answer, torch.zeros(4))  # a step that fails has not happened
    term.end_step(small_model())
    torch.testing.assert_close(term.mean_answer, torch.tensor([0.75, 0.25, 0.0, 0.0]), atol=1e-5, rtol=0)
    sure.grad = None
    loss().backward()
    # cosines are 0.95 and 0.32, the bound is 1 / √4
    assert (sure.grad[:3] == 0).all() and (sure.grad[3] != 0).any()
    term.end_step(small_model())
    torch.testing.assert_close(term.mean_answer, torch.tensor([0.375, 0.625, 0.0, 0.0]), atol=1e-5, rtol=0)


# --- AdaBN -----------------------------------------------------------------------------------------------------


def batches_of(inputs: Tensor, size: int) -> Callable[[], Iterator[Batch]]:
    places = torch.arange(len(inputs))
    return lambda: (
        Batch(inputs=part, targets=None, indices=chosen)
        for part, chosen in zip(inputs.split(size), places.split(size), strict=True)
    )


@pytest.mark.parametrize("size", [4, 7, 30])
def test_adabn_statistics_are_those_of_all_samples_together(size: int, generator: torch.Generator) -> None:
    """Batches of 4 end with a batch of one sample; batches of 7 are of unequal sizes."""
    model = small_model().eval()
    inputs = 3 * images(29, generator) + 1000
    convolution = model.trunk.module[0]
    entering = convolution(inputs).detach().double().transpose(0, 1).flatten(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    AdaBN().apply(model, batches_of(inputs, size))
    norm = model.trunk.module[1]
    torch.testing.assert_close(norm.running_mean.double(), entering.mean(1), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(norm.running_var.double(), entering.var(1), rtol=1e-4, atol=1e-5)
    moved_names = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved_names == {"trunk.module.1.running_mean", "trunk.module.1.running_var"}
    assert not any(module.training for module in model.modules())


def test_adabn_takes_a_shift_and_a_scale_of_the_inputs_back(generator: torch.Generator) -> None:
    model = small_model()
    inputs = images(32, generator)
    model.trunk.module[0].bias.data.zero_()
    model.trunk.module[0].padding = (0, 0)  # no zeros beside the image, which would not be shifted
    AdaBN().apply(model, batches_of(inputs, 8))
    own = model.eval()(inputs)
    AdaBN().apply(model, batches_of(inputs * 4 + 3, 8))
    torch.testing.assert_close(model(inputs * 4 + 3), own, rtol=1e-3, atol=1e-3)


def test_adabn_in_deeper_layers_is_what_training_normalises(generator: torch.Generator) -> None:
    """All samples in one batch: the second norm's statistics are those behind the first one's batch statistics."""
    model = adopt(
        nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 5), nn.BatchNorm1d(5, momentum=None), nn.ReLU(), nn.Linear(5, 2))
    ).eval()
    inputs = torch.randn(40, 3, generator=generator) * 2 + 5
    reference = adopt(_copy(model)).train()
    reference.trunk.module[0].momentum = None
    reference(inputs)
    AdaBN().apply(model, batches_of(inputs, 40))
    for place in (0, 2):
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(
                getattr(model.trunk.module[place], name), getattr(reference.trunk.module[place], name)
            )


def _copy(model: PretrainedModel) -> PretrainedModel:
    return copy.deepcopy(model)


def test_adabn_leaves_a_model_alone_that_it_cannot_adapt(generator: torch.Generator) -> None:
    bare = adopt(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)))
    with pytest.raises(ConfigurationError, match="its norms: LayerNorm"):
        AdaBN().apply(bare, batches_of(torch.zeros(4, 4), 2))
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(EmptyDatasetError):
        AdaBN().apply(model, lambda: iter(()))

    def breaks() -> Iterator[Batch]:
        yield from batches_of(images(6, generator), 3)()
        yield from batches_of(images(1, generator), 1)()
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="disk"):
        AdaBN().apply(model, breaks)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and model.trunk.module[1].training
    assert not model.trunk.module[1]._forward_pre_hooks


# --- FixMatch's alignment --------------------------------------------------------------------------------------


def test_aligned_answers_have_the_mean_that_the_source_has() -> None:
    answers, even = torch.tensor([[0.8, 0.2]]), torch.tensor([0.5, 0.5])
    torch.testing.assert_close(scaled(answers, class_scales(answers, even)), even[None])  # 0.8 · 0.2 and 0.2 · 0.8
    torch.testing.assert_close(scaled(answers, class_scales(answers, answers[0])), answers)
    generator = torch.Generator().manual_seed(0)
    many, mean = torch.randn(200, 5, generator=generator).softmax(1), torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    torch.testing.assert_close(scaled(many, class_scales(many, mean)).mean(0), mean, atol=1e-3, rtol=0)
    more = torch.cat([many, torch.zeros(56, 5)])
    torch.testing.assert_close(class_scales(more, mean), class_scales(many, mean))


def test_alignment_to_a_mean_is_transport() -> None:
    """POT's plan from samples to classes, at the cost −log p and with the entropy's weight 1."""
    ot = pytest.importorskip("ot")
    answers = torch.randn(60, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(1)
    mean = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    plan = ot.sinkhorn(torch.full((60,), 1 / 60, dtype=torch.float64), mean, -answers.log(), reg=1.0)
    torch.testing.assert_close(scaled(answers, class_scales(answers, mean)), 60 * plan, atol=1e-4, rtol=0)


def test_fixmatch_remembers_the_last_answers() -> None:
    """Nine steps of 32 target samples: all but the first one's are remembered, the last first."""
    term = FixMatch().term(Sizes(features=3, outputs=2))
    generator = torch.Generator().manual_seed(0)
    steps = [torch.randn(32, 2, generator=generator) for _ in range(9)]
    for outputs in steps:
        side = Side(inputs=outputs, features=outputs, outputs=outputs, targets=torch.zeros(32).long(), places=None)  # type: ignore[arg-type]
        term(DomainStep(source=side, target=side, progress=0.5, ask=lambda asked, _: (asked, asked)))
        term.end_step(small_model())
    torch.testing.assert_close(term.seen, torch.cat(steps[:0:-1]).softmax(1))  # type: ignore[arg-type]


def test_fixmatch_asks_for_a_share_of_how_sure_the_source_is() -> None:
    """The source is sure by 0.6 on average, so 0.9 of that, 0.54, is enough."""
    sure, outputs = torch.tensor([[0.6, 0.4], [0.4, 0.6]]).log(), torch.tensor([[0.55, 0.45], [0.45, 0.55]]).log()
    inputs = torch.zeros(2, 3)
    source = Side(inputs=inputs, features=inputs, outputs=sure, targets=torch.tensor([0, 1]), places=torch.arange(2))
    target = Side(inputs=inputs, features=inputs, outputs=outputs, targets=None, places=torch.arange(2))
    step = DomainStep(source=source, target=target, progress=0.5, ask=lambda asked, _: (asked, torch.zeros(2, 2)))

    def loss(method: FixMatch) -> float:
        return float(method.term(Sizes(features=3, outputs=2))(step)["pseudo_labels"])

    assert loss(FixMatch()) == pytest.approx(math.log(2))
    assert loss(FixMatch(threshold=0.95)) == loss(FixMatch(align=False)) == 0
