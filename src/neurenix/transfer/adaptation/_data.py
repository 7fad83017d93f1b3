"""What an adaptation reads: batches of both domains, all of the target, and what each epoch is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import Tensor
from torch.utils.data import DataLoader as TorchDataLoader

from ...data import ArrayDataset, DataLoader, all_targets, as_dataset, known_targets, label_names, split
from ...data.collation import Collate
from ...errors import ConfigurationError, LabelMismatchError
from ..loaders import Use, first_batch, loader_for, opened
from ..one_or_many import many
from ..tuner import Tuner
from ._paired import REPORTED, SOURCE, TARGET, Domain, PairedDomains

_HELD_OUT, _LEAST, _FEWEST = 0.1, 20, 100  # share of the source that is held out, samples at least; of how many
_READ = ("batch_size", "num_workers", "collate", "bad_limit", "timeout", "drop_last", "views")  # see Reading


@final
@dataclass(frozen=True, kw_only=True)
class Reading:
    """How batches are read, see DataLoader; drop_last and views, of the source alone before the adaptation."""

    batch_size: int
    num_workers: int
    collate: Collate | None = None
    bad_limit: float = 0.01
    timeout: float = 60.0
    drop_last: bool = False
    views: int | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Given:
    """What a fit was given, opened: datasets, and how to read them, as the source's loader does, or the target's.

    trained, held: parts of the labelled source, by class; few samples are both, so that risk on them flatters. None
    without a source. reported: labelled samples of the target for the report, or None.
    """

    trained: Any
    held: Any
    target: Any
    reported: Any
    reading: Reading

    @classmethod
    def of(cls, source: Any, target: Any, reported: Any, *, batch_size: int, num_workers: int, tuner: Tuner) -> Given:
        """Open loaders and whatever else data may be."""
        reading: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers}
        brought = [opened(d, batch_size) for d in (target, source) if isinstance(d, (DataLoader, TorchDataLoader))]
        _check_collates([settings["collate"] for settings in brought])
        for settings in brought:
            reading |= {name: settings[name] for name in _READ if settings.get(name) is not None}
        trained = held = None
        if source is not None:
            trained, held = hold_out(_plain(source), tuner.settings.seed)
        unlabelled = _plain(target)
        if isinstance(unlabelled, (str, Path)):  # a folder of files, of which each is a sample
            unlabelled = many(unlabelled, tuner.model.preprocess)
        return cls(
            trained=trained,
            held=held,
            target=ArrayDataset(unlabelled) if isinstance(unlabelled, Tensor) else as_dataset(unlabelled),
            reported=None if reported is None else as_dataset(_plain(reported)),
            reading=Reading(**reading),
        )

    def source_loader(self) -> DataLoader:
        """The labelled source, to be trained on alone."""
        return DataLoader(self.trained, **vars(self.reading))


def hold_out(source: Any, seed: int) -> tuple[Any, Any]:
    """See Given."""
    dataset = as_dataset(source)
    if len(dataset) < _FEWEST:
        return dataset, dataset
    return split(dataset, max(_HELD_OUT, _LEAST / len(dataset)), seed)


def _check_collates(collates: Sequence[Collate | None]) -> None:
    own = [collate for collate in collates if collate is not None]
    if len(own) > 1 and own[0] != own[1]:
        raise ConfigurationError(
            "source and target are read in the same batches, and their loaders have two different collate functions; "
            "give both the same."
        )


def _plain(data: Any) -> Any:
    return data.dataset if isinstance(data, (DataLoader, TorchDataLoader)) else data


@final
@dataclass(frozen=True, kw_only=True)
class DomainData:
    """training: batches of both domains. target: its samples as an evaluation sees them, in their order.

    judged: held-out samples of the source, all of the target, and what is for the report alone; None where there is no
    source. told: whether labels of the target are among them, reports: whether there are samples for the report.
    columns: numbers that a label takes.
    """

    training: DataLoader
    target: DataLoader
    judged: DataLoader | None
    told: bool
    reports: bool
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


@final
class DomainLoaders:
    """Makes the loaders of one adaptation of a tuner's model."""

    def __init__(self, tuner: Tuner, given: Given) -> None:
        self._tuner, self._given, self._said = tuner, given, False

    @property
    def categories(self) -> Sequence[str]:
        """Names of the classes in the order of the outputs; before a fit, those that it will give them."""
        return self._tuner.model.categories or ([] if self._given.trained is None else label_names(self._given.trained))

    def check(self) -> None:
        """Raise, before any time is spent, what the target's first batch would."""
        first_batch(self._plain(self._loader(self._given.target, "adaptation").dataset), self._tuner.model)

    def target(self) -> DataLoader:
        """The target's samples as predictions see them, in their order."""
        return self._plain(self._loader(self._given.target, "prediction").dataset)

    def data(self, *, learns_source: bool) -> DomainData:
        """All that one adaptation reads."""
        given, tuner = self._given, self._tuner
        columns = 1 if tuner.task == "multi_class" else tuner.num_outputs
        learned = Domain(self._loader(given.target, "adaptation").dataset, TARGET, told=False)
        labelled = [Domain(self._loader(given.trained, "training").dataset, SOURCE, told=True)] if learns_source else []
        both = PairedDomains(*labelled, learned, columns=columns)
        training = self._plain(both, shuffle=True, views=tuner.settings.augmented_views, groups=both.sizes)
        plain = self.target()
        shown = self._labelled_target() if given.reported is None else None
        judged = None
        if given.held is not None:
            domains = [Domain(self._loader(given.held, "evaluation").dataset, SOURCE, told=True)]
            domains.append(Domain(plain.dataset if shown is None else shown, TARGET, told=shown is not None))
            if given.reported is not None:
                reported = self._loader(given.reported, "evaluation").dataset
                self._check_range(reported)
                domains.append(Domain(reported, REPORTED, told=True))
            judged = self._plain(PairedDomains(*domains, columns=columns))
        return DomainData(
            training=training,
            target=plain,
            judged=judged,
            told=shown is not None,
            reports=given.reported is not None,
            columns=columns,
        )

    def _labelled_target(self) -> Any:
        """The target with labels to report by; None where it has none, or others than the model knows."""
        if known_targets(self._given.target) is None:
            return None
        try:
            dataset = self._loader(self._given.target, "evaluation").dataset
            self._check_range(dataset)
        except LabelMismatchError as reason:
            if not self._said:
                print(f"neurenix: the target's labels are left out of the report: {reason}")
            self._said = True
            return None
        return dataset

    def _check_range(self, dataset: Any) -> None:
        if self._tuner.task != "multi_class":
            return
        labels, classes = all_targets(dataset), self._tuner.num_outputs
        if labels.min() < 0 or labels.max() >= classes:
            raise LabelMismatchError(
                f"class numbers go from {labels.min()} to {labels.max()}, and the head tells {classes} apart"
            )

    def _loader(self, data: Any, use: Use) -> DataLoader:
        tuner = self._tuner
        return loader_for(
            data,
            tuner.model,
            use,
            num_outputs=tuner.num_outputs,
            categories=self.categories,
            batch_size=self._given.reading.batch_size,
            num_workers=self._given.reading.num_workers,
            seed=tuner.settings.seed,
        )

    def _plain(
        self, dataset: Any, *, shuffle: bool = False, views: int | None = None, groups: tuple[int, ...] = ()
    ) -> DataLoader:
        """In the dataset's order unless shuffled; texts are not sorted by length."""
        reading, collate = self._given.reading, self._given.reading.collate
        no_label = torch.tensor(0) if self._tuner.task == "multi_class" else torch.zeros(self._tuner.num_outputs)
        return DataLoader(
            dataset,
            batch_size=reading.batch_size,
            shuffle=shuffle,
            num_workers=reading.num_workers,
            seed=self._tuner.settings.seed,
            collate=None if collate is None else _BesideRows(collate, no_label),
            bad_limit=reading.bad_limit,
            timeout=reading.timeout,
            views=views,
            groups=groups,
        )


@final
@dataclass(frozen=True)
class _BesideRows:
    """A loader's own way of making a batch, for samples whose targets are rows of a domain and a label.

    It is given `no_label` in their place, which is like the labels that it knows, and rows are stacked beside it.
    """

    collate: Collate
    no_label: Tensor

    def __call__(self, samples: list[tuple[Any, Any]]) -> tuple[Any, Any]:
        inputs, _ = self.collate([(sample, self.no_label) for sample, _ in samples])
        rows = [row for _, row in samples]
        return inputs, None if any(row is None for row in rows) else torch.stack([torch.as_tensor(row) for row in rows])
