"""Names of files that masksmith adds to a checkpoint's directory."""

MASKS_NAME = "masks.safetensors"
RECORD_NAME = "masksmith.json"
JOURNAL_NAME = ".masksmith-journal.jsonl"
BLOCK_REPORT_NAME = "masksmith-blocks.json"
BLOCK_PAGE_NAME = "masksmith-blocks.html"
BLOCKS_NAME = ".masksmith-blocks"
"""Folder of the blocks that are finished while a model is pruned block by block."""
OWN_FILES = frozenset({MASKS_NAME, RECORD_NAME, JOURNAL_NAME, BLOCK_REPORT_NAME, BLOCK_PAGE_NAME})
