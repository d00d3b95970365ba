"""The result of a solve: a mask with its certificate, and what is derived from them."""

from .certificate import Certificate as Certificate, Run as Run
from .solution import Solution as Solution, Status as Status
