"""The methods of domain adaptation, one file each; importing this enters them in METHODS."""

from .adda import ADDA as ADDA
from .afn import AFN as AFN
from .bnm import BNM as BNM
from .bsp import BSP as BSP
from .cdan import CDAN as CDAN
from .coral import DeepCORAL as DeepCORAL
from .dan import DAN as DAN
from .dann import DANN as DANN
from .jan import JAN as JAN
from .mcc import MCC as MCC
from .mcd import MCD as MCD
from .mdd import MDD as MDD

__all__ = [
    "ADDA",
    "AFN",
    "BNM",
    "BSP",
    "CDAN",
    "DAN",
    "DANN",
    "JAN",
    "MCC",
    "MCD",
    "MDD",
    "DeepCORAL",
]
