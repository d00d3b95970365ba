"""Weight updates: once a mask is chosen, the kept weights make up for the dropped ones."""

from ._admm import admm as admm
from ._reconstruct import reconstruct as reconstruct
from ._update import AdmmStep as AdmmStep, AdmmUpdate as AdmmUpdate, Update as Update

__all__ = ["AdmmStep", "AdmmUpdate", "Update", "admm", "reconstruct"]
