"""What travels between masksmith's processes: documents, error codes, tensor formats and option grammars.

Nothing here does I/O; modules are imported one by one.
"""

WIRE_VERSION = 1
