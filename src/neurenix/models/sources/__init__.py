"""Where weights come from: the hub, an address, an installed package, this machine. Read, never run."""

from ._fetched import CONFIGURATION as CONFIGURATION
from ._hub import hub_cache as hub_cache
from ._hub import verify_pins as verify_pins
from ._obtain import Obtained as Obtained
from ._obtain import obtain as obtain
from ._stand_ins import Noted as Noted
from ._stand_ins import load_with_stand_ins as load_with_stand_ins
from ._state_dict import read_state_dict as read_state_dict
from ._tensor_bundle import read_tensor_bundle as read_tensor_bundle

__all__ = [
    "CONFIGURATION",
    "Noted",
    "Obtained",
    "hub_cache",
    "load_with_stand_ins",
    "obtain",
    "read_state_dict",
    "read_tensor_bundle",
    "verify_pins",
]
