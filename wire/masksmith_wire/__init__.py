"""Documents, error codes, tensor formats and option grammars that masksmith's processes exchange.

This package does no I/O. Import its modules directly: the package exports nothing but `WIRE_VERSION`.
"""

WIRE_VERSION = 1
