"""Layouts: which tensors are masked, how each is made of matrices, and why others stay dense. Standard library only."""

from .architectures import Architecture as Architecture, is_named_as_layer as is_named_as_layer
from .assign import with_layouts as with_layouts
from .candidates import Candidate as Candidate
from .dtypes import FLOAT_DTYPES as FLOAT_DTYPES, ITEM_BYTES as ITEM_BYTES
from .layers import is_transformers_conv1d as is_transformers_conv1d
from .layout import Layout as Layout, LayoutError as LayoutError, Rule as Rule, default_axes as default_axes
from .roles import Role as Role, Roles as Roles, in_block as in_block
from .selection import (
    BY_CHOICE as BY_CHOICE,
    Selection as Selection,
    SelectionError as SelectionError,
    check_rules_apply as check_rules_apply,
    select as select,
)
from .whole_tensors import (
    WHOLE_BYTES as WHOLE_BYTES,
    oversize_reason as oversize_reason,
    whole_tensor_needed_by as whole_tensor_needed_by,
)
from .wrappers import plain_path as plain_path, without_wrappers as without_wrappers

__all__ = [
    "BY_CHOICE",
    "FLOAT_DTYPES",
    "ITEM_BYTES",
    "WHOLE_BYTES",
    "Architecture",
    "Candidate",
    "Layout",
    "LayoutError",
    "Role",
    "Roles",
    "Rule",
    "Selection",
    "SelectionError",
    "check_rules_apply",
    "default_axes",
    "in_block",
    "is_named_as_layer",
    "is_transformers_conv1d",
    "oversize_reason",
    "plain_path",
    "select",
    "whole_tensor_needed_by",
    "with_layouts",
    "without_wrappers",
]
