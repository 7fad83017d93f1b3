"""Pretrained models: what exists, how it is built, where its weights are, what became of them on loading."""

from . import audio as audio
from . import nlp as nlp
from . import vision as vision
from ._load_report import LoadReport as LoadReport
from ._load_report import TensorFate as TensorFate
from ._pretrained_model import PretrainedModel as PretrainedModel
from ._pretrained_model import adopt as adopt
from ._pretrained_model import new_model as new_model
from ._records import (
    ARCHITECTURES as ARCHITECTURES,
)
from ._records import (
    Architecture as Architecture,
)
from ._records import (
    BuildOptions as BuildOptions,
)
from ._records import (
    HubSource as HubSource,
)
from ._records import (
    PackageSource as PackageSource,
)
from ._records import (
    Parts as Parts,
)
from ._records import (
    PathSource as PathSource,
)
from ._records import (
    UrlSource as UrlSource,
)
from ._records import (
    Weights as Weights,
)
from .layers import (
    covered as covered,
)
from .layers import (
    display_name as display_name,
)
from .layers import (
    get_layer as get_layer,
)
from .layers import (
    layer_names as layer_names,
)
from .layers import (
    match_layers as match_layers,
)
from .layers import (
    match_parameters as match_parameters,
)

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "BuildOptions",
    "HubSource",
    "LoadReport",
    "PackageSource",
    "Parts",
    "PathSource",
    "PretrainedModel",
    "TensorFate",
    "UrlSource",
    "Weights",
    "adopt",
    "audio",
    "covered",
    "display_name",
    "get_layer",
    "layer_names",
    "match_layers",
    "match_parameters",
    "new_model",
    "nlp",
    "vision",
]
