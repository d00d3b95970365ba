"""Weight updates: change the kept weights to compensate for the dropped ones."""

from masksmith._lazy import naming_extras

with naming_extras(__name__):
    from .admm import admm as admm
    from .by_layout import (
        admm_by_layout as admm_by_layout,
        by_layout as by_layout,
        reconstruct_by_layout as reconstruct_by_layout,
    )
    from .reconstruct import reconstruct as reconstruct
    from .refine import Refinement as Refinement, refine as refine
    from .update import AdmmRound as AdmmRound, AdmmUpdate as AdmmUpdate, Update as Update

__all__ = [
    "AdmmRound",
    "AdmmUpdate",
    "Refinement",
    "Update",
    "admm",
    "admm_by_layout",
    "by_layout",
    "reconstruct",
    "reconstruct_by_layout",
    "refine",
]
