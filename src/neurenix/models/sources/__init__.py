"""Where weights come from: the hub, an address, an installed package, this machine. Read, never run."""

from ._obtain import Obtained as Obtained
from ._obtain import obtain as obtain
from ._state_dict import read_state_dict as read_state_dict

__all__ = ["Obtained", "obtain", "read_state_dict"]
