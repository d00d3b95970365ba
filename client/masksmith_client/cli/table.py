"""Table of all commands: function, extra that installs the dependencies, line of help; groups of commands; examples.

`masksmith --help` and the completion of command names use this table only; a command's module is imported when the
command is called, also for its own help.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A command.

    Attributes:
        target: The function, as `module:function`.
        extra: The extra that installs its dependencies: `pip install 'masksmith[EXTRA]'`.
        help: The first line of the function's docstring.
    """

    target: str
    extra: str
    help: str


GROUPS = {
    "jobs": "List, show, watch, cancel and delete jobs, and download their results.",
    "keys": "Create, list, rotate and revoke the keys of an installation on this machine, whether it runs or not.",
}
"""Line of help of each group of commands."""

_JOBS, _RESULTS = "masksmith_client.cli.jobs", "masksmith_client.cli.job_results"
_KEYS = "masksmith_service.local.keys"

PANELS = {
    "Masks and weights": ("solve", "prune", "apply", "inspect", "verify", "diff"),
    "Measurements": ("bench",),
    "A service": ("info", "jobs"),
    "An installation": ("up", "service", "worker", "keys", "backup", "restore", "fsck", "warmup"),
}
"""Panels of `masksmith --help`, with the commands and groups in each."""

PATTERNS = (
    "Patterns (n counts the kept entries): '2:4', 'transposable 8:16', 'transposable <=8:16', '16:2:8' (V:N:M), "
    "'block 32x32 50%', 'channels out 50%', '25%'; for some tensors only: 'SELECTOR=PATTERN', where the selector is a "
    "full name, a glob, or a part of names between dots, such as 'mlp'."
)
"""Line in the help of each command that has `--pattern`."""

EXAMPLES = {
    "up": ("masksmith up", "masksmith up --workers 8 --data /srv/masksmith"),
    "solve": (
        "masksmith solve model.safetensors --pattern 'transposable 8:16' --output masks.safetensors",
        "masksmith solve model/ -p 2:4 -p '*.mlp.*=transposable 4:8' -o masks.safetensors --local",
    ),
    "prune": ("masksmith prune model/ --pattern 2:4 --output pruned/ --local",),
    "inspect": ("masksmith inspect model/ --pattern 2:4",),
    "verify": (
        "masksmith verify masks.safetensors",
        "masksmith verify pruned/ --pattern 2:4",
    ),
    "apply": ("masksmith apply masks.safetensors model.safetensors --output pruned.safetensors",),
    "diff": ("masksmith diff old.safetensors new.safetensors",),
    "bench": (
        "masksmith bench --model MiniLM --patterns '2:4,transposable 8:16,10%' --batch 1,32,256",
        "masksmith bench --shapes '4096x4096*2' --patterns 2:4 --local --output report.md",
    ),
    "jobs list": ("masksmith jobs list --state running --since 2h",),
    "jobs watch": ("masksmith jobs watch 1a2b",),
    "keys create": ("masksmith keys create ann --expires 90d",),
    "backup": ("masksmith backup /srv/backup",),
}
"""Command lines that the help of a command shows, by its name after `masksmith`."""

COMMANDS = {
    "up": Entry(
        "masksmith_service.local.up:up",
        "service",
        "Run service, workers and their Redis-protocol server until Ctrl-C; queued jobs are kept.",
    ),
    "solve": Entry("masksmith_client.cli.solve:solve", "cli", "Find the best masks for the weights of a checkpoint."),
    "inspect": Entry(
        "masksmith_client.cli.inspect:inspect",
        "cli",
        "Show the layout of a checkpoint's tensors, and which of them would be masked.",
    ),
    "prune": Entry(
        "masksmith_client.cli.prune:prune",
        "solver",
        "Write a pruned copy of a checkpoint, with masks and certificates; from_pretrained loads the copy.",
    ),
    "verify": Entry(
        "masksmith_client.cli.verify:verify",
        "solver",
        "Check masks or weights against a pattern, or weights against masks; exit code 1 after a violation.",
    ),
    "bench": Entry(
        "masksmith_client.cli.bench:bench",
        "cli",
        "Measure the speed-up of masks: sparse kernels against dense ones, for a model, a job's masks, or shapes.",
    ),
    "apply": Entry(
        "masksmith_client.cli.apply:apply",
        "cli",
        "Write a model's weights with zeros in the pruned entries; dtypes and all other tensors stay.",
    ),
    "diff": Entry(
        "masksmith_client.cli.diff:diff",
        "cli",
        "Count the entries that differ between two masks files: SAD (sum of absolute differences) and flip rate.",
    ),
    "info": Entry("masksmith_client.cli.info:info", "cli", "Show a service's state, workers, patterns and solvers."),
    "warmup": Entry(
        "masksmith_client.cli.warmup:warmup",
        "solver",
        "Compile the solver's kernels for this machine, once; later processes load them from disk.",
    ),
    "service": Entry(
        "masksmith_service.local.components:service",
        "service",
        "Run the HTTP service alone, with a Redis server that you run.",
    ),
    "worker": Entry(
        "masksmith_service.local.components:worker", "worker", "Run a worker alone, with a Redis server that you run."
    ),
    "fsck": Entry(
        "masksmith_service.local.fsck:fsck",
        "service",
        "Check every blob of a store against its digests, also of a store in use; exit code 1 if a blob is damaged.",
    ),
    "backup": Entry(
        "masksmith_service.local.backup:back_up",
        "service",
        "Write records and blobs of an installation into an empty directory, also while the installation runs.",
    ),
    "restore": Entry(
        "masksmith_service.local.backup:restore",
        "service",
        "Restore a backup into an empty installation; an installation with data is refused.",
    ),
    "jobs list": Entry(f"{_JOBS}:list_jobs", "cli", "List jobs, newest first."),
    "jobs show": Entry(f"{_JOBS}:show", "cli", "Show a job with one line per tensor."),
    "jobs watch": Entry(
        f"{_JOBS}:watch",
        "cli",
        "Follow a job until it ends; --json prints one line per event. Exit code 1 if it fails or is canceled.",
    ),
    "jobs cancel": Entry(f"{_JOBS}:cancel", "cli", "Cancel a job; finished masks can still be downloaded."),
    "jobs delete": Entry(f"{_JOBS}:delete", "cli", "Delete a job and its results."),
    "jobs masks": Entry(f"{_RESULTS}:masks", "cli", "Download the masks of a job that has ended."),
    "jobs weights": Entry(f"{_RESULTS}:weights", "cli", "Download the updated weights of a job that has ended."),
    "jobs report": Entry(
        f"{_RESULTS}:report",
        "cli",
        "Print the report of a job that has ended, as `solve` or `bench` prints it; --output also writes it to files.",
    ),
    "keys create": Entry(
        f"{_KEYS}:create", "service", "Create a key and print its token, which cannot be shown again."
    ),
    "keys list": Entry(f"{_KEYS}:list_keys", "service", "List the keys, oldest first, without their tokens."),
    "keys rotate": Entry(
        f"{_KEYS}:rotate",
        "service",
        "Replace a key's token and print the new one; the present one stays valid for a time. Jobs and quotas stay.",
    ),
    "keys revoke": Entry(
        f"{_KEYS}:revoke",
        "service",
        "Revoke a key: requests with its token are rejected. Its jobs are kept, visible to admins.",
    ),
}
