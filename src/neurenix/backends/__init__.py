"""Ways to run a forward pass that nobody needs gradients of, and the choice of the fastest that is faithful."""

from __future__ import annotations

from . import bfloat16 as _bfloat16  # noqa: F401  (each file registers its backend)
from . import channels_last as _channels_last  # noqa: F401
from . import compiled as _compiled  # noqa: F401
from . import onnx as _onnx  # noqa: F401
from . import openvino as _openvino  # noqa: F401
from . import openvino_int8 as _openvino_int8  # noqa: F401
from . import openvino_int8_products as _openvino_int8_products  # noqa: F401
from ._backend import BACKENDS as BACKENDS
from ._backend import Backend as Backend
from ._backend import CannotBuild as CannotBuild
from ._backend import Forward as Forward
from ._backend import Inputs as Inputs
from ._backend import Outputs as Outputs
from ._backend import check_backend as check_backend
from ._backend import eager as eager
from ._backend import named as named
from ._backend import size_of as size_of
from ._work import Work as Work
from ._work import counted as counted
from .channels_last import by_pixels as by_pixels
from .choice import fast_forward as fast_forward
from .choice import is_eager as is_eager

__all__ = [
    "BACKENDS",
    "Backend",
    "CannotBuild",
    "Forward",
    "Inputs",
    "Outputs",
    "Work",
    "by_pixels",
    "check_backend",
    "counted",
    "eager",
    "fast_forward",
    "is_eager",
    "named",
    "size_of",
]
