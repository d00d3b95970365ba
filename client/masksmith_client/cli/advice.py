"""Replaces HTTP requests, Python calls and names of arguments in error messages by commands and options."""

from __future__ import annotations

import re

_REPLACEMENTS = (
    (r"GET /v1/jobs lists them", "'masksmith jobs list' lists them"),
    (
        r"send it as 'Authorization: Bearer \.\.\.'; the client takes it from MASKSMITH_TOKEN, and",
        "set MASKSMITH_TOKEN to the token of a valid key;",
    ),
    (r"GET /v1/keys lists them", "'masksmith keys list' lists them"),
    (r"submit it with update=reconstruct or update=admm", "'masksmith solve --update reconstruct' or 'admm' does"),
    (r"wait for it, or follow /v1/jobs/(\w+)/events", r"'masksmith jobs watch \1' waits for it"),
    (r"client\.jobs\.get\('(\w+)'\)\.wait\(\) waits for it", r"'masksmith jobs watch \1' waits for it"),
    (r"its results: /v1/jobs/(\w+)/benchmark", r"'masksmith jobs report \1' shows its results"),
    (r"its masks: \.\.\./masks", "'masksmith jobs masks' downloads its masks"),
    (
        r"start one with 'masksmith up'$",
        "start one with 'masksmith up', or pass --local to commands that have it",
    ),
    (r"pass a model, shapes, or masks_of with a job's id", "pass --model, --shapes, or --masks-of with a job's id"),
    (r"leave (it|the tensor) out with exclude=", r"leave \1 out with --exclude"),
    (r"^time_limit_s=", "--time-limit="),
    (r"^batches(\.\d+)?(?=[=:])", "--batch"),
    (r"^(dtypes|directions|device|patterns|previous)(\.\d+)?(?=[=:])", r"--\1"),
    (r"choose ragged='pad' or 'dense'", "choose --ragged pad or --ragged dense"),
    (
        r"calibrate with more tokens, (.*)pass few_tokens='without data'",
        r"give more --calibration-windows, \1--few-tokens 'without data'",
    ),
    (r"min_tokens=(\d+)", r"--min-tokens \1"),
    (r"; load the whole model and prune it in memory$", "; prune the loaded model with masksmith.prune in Python"),
    (r"PUT /v1/tensors/\w+ first|PUT it again", "the same command sends it again"),
)
"""Regular expressions of texts in error messages; and for each, the text that replaces it."""


def advise_commands(message: str) -> str:
    """Apply all replacements to an error message, so that its advice names commands and options."""
    for expression, replacement in _REPLACEMENTS:
        message = re.sub(expression, replacement, message)
    return message
