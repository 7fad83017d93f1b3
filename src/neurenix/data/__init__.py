"""Datasets, loaders, sampling and preparation for a model."""

from __future__ import annotations

from ._batch import Batch as Batch
from ._batch import Skipped as Skipped
from ._batch import skipped_lines as skipped_lines
from ._dataset import Dataset as Dataset
from ._dataset import all_targets as all_targets
from ._dataset import innermost as innermost
from ._dataset import known_targets as known_targets
from ._dataset import label_names as label_names
from ._dataset import sample_name as sample_name
from ._dataset import work as work
from .answered_texts import NO_SPAN as NO_SPAN
from .answered_texts import AnsweredTexts as AnsweredTexts
from .answered_texts import SpanTargets as SpanTargets
from .answered_texts import has_answers as has_answers
from .audio_files import SOUNDS as SOUNDS
from .audio_files import AudioFiles as AudioFiles
from .audio_files import AudioFolder as AudioFolder
from .audio_files import as_mono as as_mono
from .audio_files import read_audio as read_audio
from .boxed_images import BoxedImages as BoxedImages
from .coco import CocoDataset as CocoDataset
from .collation import collate as collate
from .conversion import as_dataset as as_dataset
from .description import describe as describe
from .determinism import is_random as is_random
from .findings import Finding as Finding
from .findings import report as report
from .image_files import ImageFiles as ImageFiles
from .image_files import ImageFolder as ImageFolder
from .image_files import images_directly_in as images_directly_in
from .image_files import open_image as open_image
from .image_files import to_rgb as to_rgb
from .in_memory import ArrayDataset as ArrayDataset
from .in_memory import ListDataset as ListDataset
from .in_memory import TextDataset as TextDataset
from .loader import DataLoader as DataLoader
from .loader import padding_share as padding_share
from .manifest import DataManifest as DataManifest
from .manifest import write_data_manifest as write_data_manifest
from .mask_folders import MaskFolder as MaskFolder
from .preparation import PREPROCESSES as PREPROCESSES
from .preparation import PreparedDataset as PreparedDataset
from .preparation import Preprocess as Preprocess
from .preparation import check_inputs as check_inputs
from .preparation import prepare as prepare
from .relabelled import Relabelled as Relabelled
from .relabelled import relabelled as relabelled
from .sampling import epoch_order as epoch_order
from .sampling import sample_seed as sample_seed
from .subset import Subset as Subset
from .subset import split as split
from .tables import HuggingFaceDataset as HuggingFaceDataset
from .tables import TableDataset as TableDataset
from .tagged_texts import NO_TAG as NO_TAG
from .tagged_texts import TaggedTexts as TaggedTexts
from .tagged_texts import TokenTargets as TokenTargets
from .tagged_texts import has_tagged_words as has_tagged_words
from .tagged_texts import texts_of as texts_of
from .voc import VocDataset as VocDataset
from .written_targets import ReadTargets as ReadTargets
from .written_targets import SequenceTargets as SequenceTargets
from .written_targets import WrittenTargets as WrittenTargets
from .yolo_folders import YoloDataset as YoloDataset

__all__ = [
    "AnsweredTexts",
    "ArrayDataset",
    "AudioFiles",
    "AudioFolder",
    "Batch",
    "BoxedImages",
    "CocoDataset",
    "DataLoader",
    "DataManifest",
    "Dataset",
    "Finding",
    "HuggingFaceDataset",
    "ImageFiles",
    "ImageFolder",
    "ListDataset",
    "MaskFolder",
    "NO_SPAN",
    "NO_TAG",
    "PREPROCESSES",
    "PreparedDataset",
    "Preprocess",
    "ReadTargets",
    "Relabelled",
    "SOUNDS",
    "SequenceTargets",
    "Skipped",
    "Subset",
    "SpanTargets",
    "TableDataset",
    "TaggedTexts",
    "TextDataset",
    "TokenTargets",
    "VocDataset",
    "WrittenTargets",
    "YoloDataset",
    "all_targets",
    "as_dataset",
    "as_mono",
    "check_inputs",
    "collate",
    "describe",
    "epoch_order",
    "images_directly_in",
    "has_answers",
    "has_tagged_words",
    "innermost",
    "texts_of",
    "is_random",
    "known_targets",
    "label_names",
    "open_image",
    "padding_share",
    "prepare",
    "read_audio",
    "relabelled",
    "report",
    "sample_name",
    "sample_seed",
    "skipped_lines",
    "split",
    "to_rgb",
    "work",
    "write_data_manifest",
]
