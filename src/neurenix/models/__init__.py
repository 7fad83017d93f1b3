"""Pretrained models: what exists, how it is built, where its weights are, what became of them on loading."""

from . import nlp as nlp, vision as vision
from ._load_report import LoadReport as LoadReport, TensorFate as TensorFate
from ._pretrained_model import PretrainedModel as PretrainedModel, adopt as adopt
from ._records import (
    ARCHITECTURES as ARCHITECTURES,
    Architecture as Architecture,
    BuildOptions as BuildOptions,
    HubSource as HubSource,
    PackageSource as PackageSource,
    Parts as Parts,
    PathSource as PathSource,
    UrlSource as UrlSource,
    Weights as Weights,
)
from .layers import (
    covered as covered,
    display_name as display_name,
    get_layer as get_layer,
    layer_names as layer_names,
    match_layers as match_layers,
    match_parameters as match_parameters,
)
