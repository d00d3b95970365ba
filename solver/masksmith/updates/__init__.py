"""Weight updates: once a mask is chosen, the kept weights make up for the dropped ones."""

from masksmith._lazy import naming_extras

with naming_extras(__name__):
    from .admm import admm as admm
    from .reconstruct import reconstruct as reconstruct
    from .update import AdmmStep as AdmmStep, AdmmUpdate as AdmmUpdate, Update as Update

__all__ = ["AdmmStep", "AdmmUpdate", "Update", "admm", "reconstruct"]
