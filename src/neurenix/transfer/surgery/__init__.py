"""Layers added, removed and replaced: tried out first, recorded, undone, and done again by loading."""

from ._edit import EDITS as EDITS
from ._edit import PUT_ASIDE as PUT_ASIDE
from ._edit import base_of as base_of
from ._edit import list_edits as list_edits
from ._edit import put_aside as put_aside
from ._edit import replay_edits as replay_edits
from ._edit import restore_edits as restore_edits
from ._edit import undo_edit as undo_edit
from ._layer_records import register_layer as register_layer
from .add_layer import add_layer as add_layer
from .prune_depth import block_influence as block_influence
from .prune_depth import prune_depth as prune_depth
from .remove_layer import remove_layer as remove_layer
from .replace_layer import replace_layer as replace_layer
from .resize_vocabulary import resize_vocabulary as resize_vocabulary
from .swap_activations import swap_activations as swap_activations
from .swap_norms import swap_norms as swap_norms

__all__ = [
    "EDITS",
    "PUT_ASIDE",
    "add_layer",
    "base_of",
    "block_influence",
    "list_edits",
    "prune_depth",
    "put_aside",
    "register_layer",
    "remove_layer",
    "replace_layer",
    "replay_edits",
    "resize_vocabulary",
    "restore_edits",
    "swap_activations",
    "swap_norms",
    "undo_edit",
]
