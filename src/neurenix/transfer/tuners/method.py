"""What the parameter-efficient tuners share: a frozen base, own parameters, and a head."""

from __future__ import annotations

import abc
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from ...data import Batch
from ...errors import ConfigurationError
from ...models import PretrainedModel, covered
from ...nn import unwrap
from ...registry import Registry
from ...training import Rates, above, check_rate, constant_schedule
from ..base_state import base_name
from ..closed_form_head import is_solvable
from ..fit_settings import FitSettings
from ..heads._choice import chosen_class
from ..strategies import Plan
from ..tuner import Tuner
from .certificate import MergeCertificate, certify

TUNERS: Registry[type[MethodTuner]] = Registry("tuner")


@dataclass(frozen=True, kw_only=True)
class MethodSettings(FitSettings):
    """See the tuners, which document each of them. A method's own record adds its arguments."""

    solve_head: bool = True


@dataclass(frozen=True, kw_only=True)
class BlockSettings(MethodSettings):
    """layers: the blocks that a method keeps to, see places.blocks; its only argument."""

    layers: Sequence[str] | str | int | None


class MethodTuner(Tuner):
    """Trains a head and what a method puts into the model; everything else keeps every byte, dropout is off in it.

    A new linear head begins in closed form, see Finetuner's strategy lp_ft.
    """

    own_rate: float = 1e-3  # of what the method trains, where no learning_rate is given
    settings: MethodSettings
    _own: list[str]
    _tuned: PretrainedModel | None

    @abc.abstractmethod
    def _install(self) -> list[str]:
        """Put the method's layers into the trunk; gives the qualified names of the parameters that it trains."""

    @property
    def own_parameters(self) -> list[str]:
        """Qualified names of the parameters that the method trains beside the head."""
        return list(self._own)

    @property
    def trained_share(self) -> float:
        """Parameters of the method, without the head, as a share of the base's."""
        parameters = dict(self.model.trunk.named_parameters(prefix="trunk"))
        own = sum(parameters[name].numel() for name in self._own)
        added = sum(parameter.numel() for name, parameter in parameters.items() if name not in self._base)
        return own / max(1, sum(parameter.numel() for parameter in parameters.values()) - added)

    def detach(self) -> PretrainedModel:
        """A copy of the base with the trained head, as it was before the method came in: bit for bit."""
        model = copy.deepcopy(self.model)
        self._remove(model)
        state = model.state_dict()
        with torch.no_grad():
            for name, tensor in self._originals.items():
                state[name].copy_(tensor)
        return model

    def merge(self, probe: Any, tolerance: float | None = None, batch_size: int = 32) -> MergeCertificate:
        """Fold the method into the base's weights, so that predictions cost what the base costs.

        The merged model takes the place of the tuned one once its answers for `probe` are the same; `unmerge` puts the
        tuned one back. While it is merged, it cannot be trained or saved.

        probe: samples as predict takes them. tolerance: largest difference of an answer, as a share of the largest
        answer; None takes 1e-4, or 2e-2 in bfloat16.
        Raises ConfigurationError for methods that cannot be folded; MergeError where the answers differ by more.
        """
        if self._tuned is not None:
            raise ConfigurationError("this tuner is merged already; unmerge() puts the tuned model back.")
        merged = copy.deepcopy(self.model)
        self._fold(merged)
        certificate = certify(self.model, merged, self._probe(probe, batch_size), tolerance)
        self._tuned, self.model = self.model, merged
        return certificate

    def unmerge(self) -> None:
        """Put the tuned model back in place of the merged one, bit for bit."""
        if self._tuned is None:
            raise ConfigurationError("this tuner is not merged; merge(probe) does it.")
        self.model, self._tuned = self._tuned, None

    # --- parts -------------------------------------------------------------------------------------------------

    def _rewrites_base(self) -> bool:
        """Whether the method begins by changing weights of the base that it does not train."""
        return False

    def _remove(self, model: PretrainedModel) -> None:
        """Take the method's layers out of a copy of the model."""
        unwrap(model)

    def _fold(self, model: PretrainedModel) -> None:
        """Take the method's layers into the weights of a copy of the model."""
        raise ConfigurationError(
            f"{type(self).__name__} cannot be merged: what it trains is no linear change of the base's weights. Save "
            "it as it is; it stays a few layers beside the base."
        )

    def _check_ready(self) -> None:
        if self._tuned is not None:
            raise ConfigurationError("this tuner is merged, so nothing can be trained or saved; call unmerge() first.")

    def _probe(self, data: Any, batch_size: int) -> Batch:
        loader = self._loader(data, batch_size, 0, "prediction")
        return loader.first(0).to(next(self.model.parameters()).device)

    @final
    def _prepare(self) -> tuple[str, ...]:
        self._tuned = None
        kind = self.settings.head_class() or chosen_class(self.model.head_record)
        if kind is not None and not kind.learns:
            raise ConfigurationError(
                f"the head {kind.__name__} has nothing to train, so {type(self).__name__} would learn from nothing; "
                "use it with a Finetuner, which fills it."
            )
        state = self.model.trunk.state_dict(prefix="trunk.")
        device = next(self.model.parameters()).device
        before = {name: tensor.clone() for name, tensor in state.items()} if self._rewrites_base() else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            self._own = self._install()
        if not self._own:
            raise ConfigurationError(f"{self.model.name} has nothing that {type(self).__name__} could train.")
        self.model.to(device)
        now = {base_name(name): tensor for name, tensor in self.model.trunk.state_dict(prefix="trunk.").items()}
        self._originals = {name: now[name].clone() for name in map(base_name, self._own) if name in state}
        self._originals |= {name: tensor for name, tensor in before.items() if not torch.equal(tensor, now[name])}
        return all_but(self.model, self._own)

    @final
    def _plan(self, samples: int, epochs: int) -> Plan:
        return Plan(
            freezing=constant_schedule(self._frozen),
            closed_form=self.settings.solve_head and is_solvable(self.model.head),
            reason="the base is frozen, the method's own parameters and the head learn",
        )

    @final
    def _rates(self, learning_rate: float | None) -> Rates:
        given = self.settings.learning_rate if learning_rate is None else learning_rate
        check_rate(given)
        body, head = (self.own_rate, 1e-3) if given is None else (given, given)
        return Rates(body=body, head=head, layers=self._layer_rates(body))

    def _layer_rates(self, rate: float) -> Mapping[str, float]:
        """Rates of layers that learn at another one."""
        return {}

    @final
    def _keeps_statistics(self, solved_head: bool) -> bool:
        return True


def all_but(model: PretrainedModel, own: Sequence[str]) -> tuple[str, ...]:
    """Qualified names of everything in the trunk that is neither one of these parameters nor holds one."""
    kept = {*own, *(holder for name in own for holder in above(name))}
    names = [name for name, _ in model.named_modules()] + [name for name, _ in model.named_parameters()]
    return tuple(name for name in names if covered(name, ["trunk"]) and name not in kept)


def new_parameters(model: nn.Module, before: set[int]) -> list[str]:
    """Names of the parameters that were not there before. before: ids of those that were."""
    return [name for name, parameter in model.named_parameters() if id(parameter) not in before]
