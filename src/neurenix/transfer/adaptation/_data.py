"""What an adaptation reads: batches of both domains, all of the target, and what each epoch is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, final

from ...data import DataLoader, as_dataset, known_targets, split
from ...errors import LabelMismatchError
from ..loaders import Use, loader_for
from ..tuner import Tuner
from ._paired import PairedDomains

_HELD_OUT, _FEWEST = 0.1, 50  # share of the source that is held out, where it has so many samples


@final
@dataclass(frozen=True, kw_only=True)
class DomainData:
    """training: batches of both domains. target: its samples as an evaluation sees them, in their order.

    judged: held-out samples of the source and all of the target, or its labelled validation samples; None where there
    is no source. told: whether labels of the target are among them, to report by.
    columns: numbers that a label takes.
    """

    training: DataLoader
    target: DataLoader
    judged: DataLoader | None
    told: bool
    columns: int

    @property
    def offset(self) -> int:
        """Place of the target's first sample in the training data."""
        both = cast(PairedDomains, self.training.dataset)
        return both.sizes[0] if len(both.sizes) > 1 else 0

    @property
    def spread(self) -> float:
        """Samples that an epoch is judged by, for each one of the source among them."""
        if self.judged is None:
            return 1.0
        sizes = cast(PairedDomains, self.judged.dataset).sizes
        return sum(sizes) / sizes[0]


def hold_out(source: Any, seed: int) -> tuple[Any, Any]:
    """(training, held-out) parts of the source, by class; few samples are both, so that risk on them flatters."""
    dataset = as_dataset(source.dataset if isinstance(source, DataLoader) else source)
    return split(dataset, _HELD_OUT, seed) if len(dataset) >= _FEWEST else (dataset, dataset)


@final
class DomainLoaders:
    """Makes the loaders of one adaptation of a tuner's model."""

    def __init__(self, tuner: Tuner, batch_size: int, num_workers: int) -> None:
        self._tuner, self._batch_size, self._num_workers = tuner, batch_size, num_workers

    def data(self, source: Any, held: Any, target: Any, validation: Any, *, learns_source: bool) -> DomainData:
        """source, held: parts of the labelled source, or None. validation: labelled samples of the target, or None."""
        tuner = self._tuner
        columns = 1 if tuner.task == "multi_class" else tuner.num_outputs
        labelled = self._loader(source, "training").dataset if learns_source else None
        both = PairedDomains(labelled, self._loader(target, "adaptation").dataset, columns=columns, told=False)
        training = self._plain(both, shuffle=True, views=tuner.settings.augmented_views, groups=both.sizes)
        shown = self._labelled(validation if validation is not None else target)
        plain = self._plain(self._loader(target, "prediction").dataset)
        judged = None
        if held is not None:
            of_target, told = plain.dataset if shown is None else shown.dataset, shown is not None
            pair = PairedDomains(self._loader(held, "evaluation").dataset, of_target, columns=columns, told=told)
            judged = self._plain(pair)
        return DomainData(
            training=training,
            target=plain,
            judged=judged,
            told=shown is not None,
            columns=columns,
        )

    def _labelled(self, target: Any) -> DataLoader | None:
        """The target with labels to report by; None where it has none, or others than the model knows."""
        dataset = target.dataset if isinstance(target, DataLoader) else target
        if known_targets(as_dataset(dataset)) is None:
            return None
        try:
            return self._loader(target, "evaluation")
        except LabelMismatchError as reason:
            print(f"neurenix: the target's labels are left out of the report: {reason}")
            return None

    def _loader(self, data: Any, use: Use) -> DataLoader:
        tuner = self._tuner
        return loader_for(
            data,
            tuner.model,
            use,
            num_outputs=tuner.num_outputs,
            categories=tuner.model.categories,
            batch_size=self._batch_size,
            num_workers=self._num_workers,
            seed=tuner.settings.seed,
        )

    def _plain(
        self, dataset: Any, *, shuffle: bool = False, views: int | None = None, groups: tuple[int, ...] = ()
    ) -> DataLoader:
        """In the dataset's order unless shuffled; texts are not sorted by length."""
        return DataLoader(
            dataset,
            self._batch_size,
            shuffle=shuffle,
            num_workers=self._num_workers,
            seed=self._tuner.settings.seed,
            views=views,
            groups=groups,
        )
