"""Weight updates: change the kept weights to compensate for the dropped ones."""

from .admm import admm as admm
from .reconstruct import reconstruct as reconstruct
from .update import AdmmStep as AdmmStep, AdmmUpdate as AdmmUpdate, Update as Update

__all__ = ["AdmmStep", "AdmmUpdate", "Update", "admm", "reconstruct"]
