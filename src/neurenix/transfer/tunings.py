"""Several tunings of one base: the base is in memory once, and each tuning is what it adds."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy
import torch
from torch import Tensor, nn

from ..data import Subset, as_dataset
from ..errors import ConfigurationError, UnknownNameError, WeightsMismatchError
from ..models import PretrainedModel, adopt
from ..storage import tensor_digest
from .base_state import base_name
from .saving import read_manifest, saved_folder
from .tuner import Tuner
from .tuners import TUNERS
from .tuners.method import MethodTuner


@final
class Tunings(Mapping[str, MethodTuner]):
    """Tunings of one base by name, each a tuner that shares the base's tensors with the others.

    base: what they were tuned from; it is copied, and never changes.

    `tunings["reviews"].predict(texts)` uses one; `tunings.predict(texts, names)` another one for each sample;
    `tunings.base` is the model without any.
    """

    def __init__(self, base: nn.Module) -> None:
        self.base = adopt(copy.deepcopy(base)).eval()
        self._digests = {name: tensor_digest(tensor) for name, tensor in self.base.trunk.state_dict().items()}
        self._tuners: dict[str, MethodTuner] = {}

    def add(self, name: str, tuning: Tuner | str | Path) -> None:
        """Take a tuning in, a tuner or the folder that one was saved to; one of the same name is replaced.

        Raises WeightsMismatchError where it was tuned from another base.
        """
        tuner = copy.copy(tuning) if isinstance(tuning, Tuner) else self._loaded(Path(tuning))
        if not isinstance(tuner, MethodTuner):
            raise ConfigurationError(
                f"{type(tuner).__name__} changes the base itself, so it shares nothing with other tunings; those of "
                f"{', '.join(cls.__name__ for cls in TUNERS.values())} can be added."
            )
        self._check_base(tuner)
        tuner.model = copy.deepcopy(tuner.model)
        _share(tuner.model, self.base, set(tuner._originals))
        tuner.optimizer = tuner._new_optimizer()
        self._tuners[name] = tuner

    def remove(self, name: str) -> None:
        """Forget a tuning; the base and the others stay as they are."""
        del self._tuners[self._known(name)]

    def predict(self, data: Any, names: Sequence[str | None], batch_size: int = 32) -> numpy.ndarray:
        """Class names or values, one per sample, each by the tuning that is named for it.

        data: as Tuner.predict takes it. names: one for each sample. Samples of one tuning are computed together.
        """
        dataset = as_dataset(data) if not isinstance(data, list) else data
        if len(names) != len(dataset):
            raise ConfigurationError(f"{len(names)} names for {len(dataset)} samples; give one for each.")
        found = numpy.empty(len(names), dtype=object)
        for name in dict.fromkeys(names):
            if name is None:
                raise ConfigurationError("a prediction needs a tuning, whose head it is; None names no one.")
            places = [place for place, chosen in enumerate(names) if chosen == name]
            some = [data[place] for place in places] if isinstance(data, list) else Subset(dataset, places)
            found[places] = self[name].predict(some, batch_size)
        return found

    def merged(self, weights: Mapping[str, float]) -> PretrainedModel:
        """The base with the weighted sum of what several tunings change: W + Σ wᵢ (Wᵢ - W), for methods that merge.

        The head is the weighted sum of their heads where all have as many outputs, else the first one's.
        Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023.
        """
        folded = {name: self._folded(name) for name in weights}
        if not folded:
            raise ConfigurationError("weights is empty; name the tunings that are to be merged.")
        model = copy.deepcopy(next(iter(folded.values())))
        state, base = model.trunk.state_dict(), self.base.trunk.state_dict()
        states = {name: one.trunk.state_dict() for name, one in folded.items()}
        with torch.no_grad():
            for name, tensor in state.items():
                if tensor.is_floating_point():
                    changes = [weights[key] * (one[name] - base[name]) for key, one in states.items()]
                    tensor.copy_(base[name] + torch.stack(changes).sum(0))
            _merge_heads(model, folded, weights)
        return model

    def __getitem__(self, name: str) -> MethodTuner:
        return self._tuners[self._known(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tuners)

    def __len__(self) -> int:
        return len(self._tuners)

    def _known(self, name: str) -> str:
        if name not in self._tuners:
            raise UnknownNameError("tuning", name, self._tuners, hint="add(name, tuner) takes one in.")
        return name

    def _loaded(self, folder: Path) -> Tuner:
        kinds = {cls.__name__: cls for cls in TUNERS.values()}
        folder = saved_folder(folder)
        kind = read_manifest(folder).get("kind")
        if kind not in kinds:
            raise ConfigurationError(f"{folder} holds a {kind}; those of {', '.join(kinds)} can be added.")
        own = None if self.base.architecture is not None else self.base
        return kinds[kind].load(folder, model=own, device=str(next(self.base.parameters()).device))

    def _check_base(self, tuner: MethodTuner) -> None:
        """The tuner's base has to have the same tensors, but for those that its method changes."""
        found = {
            base_name(name): digest
            for name, digest in tuner._base.items()
            if name.startswith("trunk.") and base_name(name) not in tuner._originals
        }
        found |= {name: tensor_digest(tensor) for name, tensor in tuner._originals.items()}
        wrong = [name for name, digest in found.items() if self._digests.get(name.removeprefix("trunk.")) != digest]
        if wrong or len(found) != len(self._digests):
            raise WeightsMismatchError(
                f"this tuning was made from another base: {len(wrong)} tensors differ, such as {wrong[:1]}. Load the "
                "model that it was tuned from."
            )

    def _folded(self, name: str) -> PretrainedModel:
        tuner = self[name]
        model = copy.deepcopy(tuner.model)
        tuner._fold(model)
        return model


def _share(model: PretrainedModel, base: PretrainedModel, changed: set[str]) -> None:
    """Give the model the base's own parameters in place of its equal ones. changed: names of those that are not."""
    own: dict[str, Tensor] = dict(base.named_parameters())
    for name, module in list(model.named_modules()):
        for key, _ in list(module.named_parameters(recurse=False)):
            shared = base_name(f"{name}.{key}")
            if shared in own and shared not in changed and shared.startswith("trunk."):
                setattr(module, key, own[shared])


def _merge_heads(model: PretrainedModel, folded: Mapping[str, PretrainedModel], weights: Mapping[str, float]) -> None:
    states = {name: one.head.state_dict() for name, one in folded.items()}
    first = next(iter(states.values()))
    alike = all(
        state.keys() == first.keys() and all(state[key].shape == first[key].shape for key in first)
        for state in states.values()
    )
    if alike:
        for key, tensor in model.head.state_dict().items():
            tensor.copy_(torch.stack([weights[name] * state[key] for name, state in states.items()]).sum(0))
