"""`masksmith verify` of weights: against patterns, a masks file, or the masks that `prune` wrote with the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masksmith.layouts import Layout
from masksmith.patterns import Pattern
from masksmith_client._errors import InputError, as_input_errors
from masksmith_client._progress import Bar
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import choose
from masksmith_client.checkpoints.output_folder import RecordedMasks, recorded_masks
from masksmith_client.checkpoints.tensors import Tensor
from masksmith_client.checkpoints.verify import (
    CheckedTensor,
    check_weights,
    tensors_of_masks,
    verify_masks,
    verify_patterns,
)
from masksmith_client.results.masks import Masks
from masksmith_client.submission.options import parse_pattern
from masksmith_wire.masks import MaskInfo
from masksmith_wire.quantities import count_text

from .checkpoint_options import choice_options, parse_patterns
from .console import percent, print_json, print_line, print_note, show_table
from .local import import_library

MaskViolation = Callable[[Any, Pattern, MaskInfo | None], str | None]
"""Returns how a mask violates a pattern; None if it does not violate it. `MaskInfo` is from the masks file."""


@dataclass(frozen=True, slots=True)
class WeightOptions:
    """Options of the command; None, or False, where the user did not pass one."""

    pattern: list[str] | None
    masks: Path | None
    axis: Any
    ragged: Any
    layers: list[str] | None
    exclude: list[str] | None
    layout: list[str] | None
    trust_remote_code: bool

    @property
    def has_choice_options(self) -> bool:
        """Whether the user passed an option that selects the tensors to check, or concerns their layouts."""
        return bool(self.layers or self.exclude or self.layout or self.trust_remote_code)


@dataclass(frozen=True, slots=True)
class _Checks:
    """Checks to run.

    Attributes:
        results: Checks one tensor at each step of the iteration, and yields the result.
        tensors: The tensors to check, by `CheckedTensor.name`.
        why_not_checked: The reasons why tensors are not checked, by the names of the tensors.
        notes: Notes for the user.
    """

    results: Iterator[CheckedTensor]
    tensors: Mapping[str, Tensor]
    why_not_checked: Mapping[str, str]
    notes: list[str]


def verify_weights(path: Path, options: WeightOptions, mask_violation: MaskViolation, *, as_json: bool) -> bool:
    """Verify weights and print the results; returns whether all tensors that are checked pass.

    Args:
        path: The checkpoint.
        options: Options of the command.
        mask_violation: Checks a mask against its own pattern, if weights are verified against masks.
        as_json: Whether the results are printed as JSON.

    Raises:
        InputError: If an option or an input is invalid, or there is nothing to verify.
    """
    if options.pattern and options.masks is not None:
        raise InputError("--pattern and --masks are two ways to verify; pass one of them")
    if not options.pattern and (options.has_choice_options or options.axis or options.ragged):
        raise InputError("--layers, --exclude, --layout, --trust-remote-code, --axis and --ragged need --pattern")
    checkpoint = Checkpoint.open(path)
    if options.pattern:
        checks = _against_patterns(checkpoint, options)
    else:
        checks = _against_masks(checkpoint, options, mask_violation)
    results = []
    total_bytes = sum(tensor.data_bytes for tensor in checks.tensors.values())
    with Bar("verifying", total_bytes, show="lines", in_bytes=True) as bar:
        for result in checks.results:
            results.append(result)
            bar.advance(checks.tensors[result.name].data_bytes)
    _show(results, checks, as_json=as_json)
    return all(result.message is None for result in results)


def _against_patterns(checkpoint: Checkpoint, options: WeightOptions) -> _Checks:
    patterns = parse_patterns(options.pattern or (), options.axis or "in", options.ragged or "pad")
    selection = choice_options(
        patterns, options.layers, options.exclude, options.layout, options.trust_remote_code, quantised_as_floats=True
    )
    checkpoint.check_zeros_can_be_counted()
    choice = choose(checkpoint, selection)
    check_weights(checkpoint, choice)
    masksmith = import_library()

    def verify(entries: Any, pattern: Pattern, layout: Layout | None) -> Any:
        with as_input_errors(masksmith.MasksmithError):
            return masksmith.verify(entries, pattern, layout=layout, at_most=True)

    tensors = {chosen.name: checkpoint.tensors[chosen.name] for chosen in choice.masked_tensors}
    why_not_checked = {name: chosen.reason for name, chosen in choice.tensors.items() if chosen.reason is not None}
    return _Checks(verify_patterns(checkpoint, choice, verify), tensors, why_not_checked, list(choice.notes))


def _against_masks(checkpoint: Checkpoint, options: WeightOptions, mask_violation: MaskViolation) -> _Checks:
    uses_own_masks = options.masks is None and checkpoint.path.is_dir()
    record = recorded_masks(checkpoint.folder) if uses_own_masks else None
    masks = _open_masks(checkpoint, options.masks, record)
    tensors = tensors_of_masks(checkpoint, masks)

    def own_violation(name: str) -> str | None:
        info = masks.infos.get(name)
        if info is None:
            return None
        expected: Any = parse_pattern(info.pattern, info.axis, info.ragged)  # type: ignore[arg-type]
        message = mask_violation(masks[name], expected, info)
        return None if message is None else f"its mask violates its pattern: {message}"

    checked_names = {tensor.name for tensor in tensors.values()}
    why_not_checked = {name: "no mask" for name in checkpoint.tensors if name not in checked_names}
    notes = [*checkpoint.notes, *(_notes_on_files(record) if record else ())]
    return _Checks(verify_masks(masks, tensors, own_violation), tensors, why_not_checked, notes)


def _notes_on_files(record: RecordedMasks) -> list[str]:
    changed = [f"{file} is not as prune wrote it" for file in record.changed_files]
    missing = [f"{file} is missing: prune copied it from the model's directory" for file in record.missing_copies]
    return changed + missing


def _open_masks(checkpoint: Checkpoint, path: Path | None, record: RecordedMasks | None) -> Masks:
    """Open the masks file `path` that the user passed, or else the recorded one; at most one of them is given."""
    source = path if record is None else record.masks_file
    if source is None:
        raise InputError(f"{checkpoint.path} has no record of its masks; pass --pattern, or --masks with a masks file")
    masks = Masks.open(source)
    if not masks:
        raise InputError(f"{source} contains no mask: there is nothing to verify")
    if record is not None and set(record.names) != set(masks):
        name = min(set(record.names) ^ set(masks))
        raise InputError(f"{source} and the record in the same folder differ: only one of them masks {name!r}")
    return masks


def _show(results: list[CheckedTensor], checks: _Checks, *, as_json: bool) -> None:
    documents = [result.document() for result in results]
    totals = _totals(results, checks)
    if as_json:
        not_checked = [{"name": name, "reason": reason} for name, reason in checks.why_not_checked.items()]
        document = {"ok": totals["broken"] == 0, "tensors": documents, "not_checked": not_checked, "totals": totals}
        return print_json(document | {"notes": checks.notes})
    rows = [_row(document) for document in documents]
    rows += [(name, f"not checked: {reason}", "-", "-", "-") for name, reason in checks.why_not_checked.items()]
    show_table(("tensor", "verdict", "pattern", "shape", "density"), rows, left_aligned=3)
    for text in checks.notes:
        print_note(f"masksmith: {text}")
    verdict = f"{count_text(totals['broken'])} with a violation" if totals["broken"] else "no violation"
    print_line(
        f"{count_text(totals['checked'])} of {count_text(totals['tensors'])} tensor(s) checked, "
        f"{percent(totals['density'])} of their entries are not zero: {verdict}"
    )
    return None


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    return (
        result["name"],
        "ok" if result["ok"] else f"VIOLATION: {result['message']}",
        result["pattern"] or "-",
        "x".join(map(str, result["shape"])),
        percent(result["density"]),
    )


def _totals(results: list[CheckedTensor], checks: _Checks) -> dict[str, Any]:
    entries = sum(math.prod(result.shape) for result in results)
    nonzeros = sum(result.nonzeros for result in results)
    return {
        "tensors": len(results) + len(checks.why_not_checked),
        "checked": len(results),
        "broken": sum(result.message is not None for result in results),
        "entries": entries,
        "nonzeros": nonzeros,
        "density": nonzeros / max(1, entries),
    }
