"""Names of files that masksmith adds to a checkpoint's directory."""

MASKS_NAME = "masks.safetensors"
RECORD_NAME = "masksmith.json"
JOURNAL_NAME = ".masksmith-journal.jsonl"
OWN_FILES = frozenset({MASKS_NAME, RECORD_NAME, JOURNAL_NAME})
