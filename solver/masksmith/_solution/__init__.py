"""What a solve returns: the mask with its proof, and what is made of them."""

from .certificate import Certificate as Certificate, Run as Run
from .solution import Solution as Solution, Status as Status
