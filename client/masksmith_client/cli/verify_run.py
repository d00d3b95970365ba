"""The steps of `masksmith verify`, by code that is independent of the solvers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from masksmith.patterns import Pattern, PatternError
from masksmith_client._errors import InputError, as_input_errors
from masksmith_client.checkpoints.files import read_file_header
from masksmith_client.results.masks import Masks
from masksmith_client.submission.options import parse_pattern
from masksmith_wire.masks import MaskInfo
from masksmith_wire.output_names import PICKLE_SUFFIXES, is_index_name
from masksmith_wire.quantities import count_text

from .checkpoint_options import parse_patterns
from .console import percent, print_json, print_line, show_table
from .local import import_library
from .verify_weights import WeightOptions, verify_weights


def verify_path(path: Path, options: WeightOptions, *, as_json: bool) -> bool:
    """Check masks or weights, and print the result; returns whether all are valid.

    Raises:
        InputError: If a file cannot be read, or an option does not fit it.
    """
    if not _is_masks_file(path):
        return verify_weights(path, options, mask_violation, as_json=as_json)
    if options.masks is not None or options.has_choice_options:
        options_for_weights = "--masks, --layers, --exclude, --layout and --trust-remote-code"
        raise InputError(f"{path} is a masks file; {options_for_weights} are for weights")
    return _verify_masks(path, options.pattern, options.axis, options.ragged, as_json=as_json)


def mask_violation(mask: Any, pattern: Pattern, info: MaskInfo | None) -> str | None:
    """Return how a mask violates a pattern, or why the pattern does not fit it; None if the mask is valid."""
    if 0 in mask.shape:
        return "it has no entries"
    try:
        verdict = import_library().verify(mask, pattern, layout=None if info is None else info.layout)
    except PatternError as error:
        return str(error)
    return None if verdict.ok else str(verdict.message)


def _is_masks_file(path: Path) -> bool:
    is_file = path.is_file() and path.suffix not in PICKLE_SUFFIXES and not is_index_name(path.name)
    return is_file and Masks.is_masks_header(read_file_header(path))


def _verify_masks(path: Path, pattern_texts: list[str] | None, axis: Any, ragged: Any, *, as_json: bool) -> bool:
    masks = Masks.open(path)
    if not masks:
        raise InputError(f"{path} contains no mask: there is nothing to verify")
    with as_input_errors(PatternError):
        requested = parse_patterns(pattern_texts).assign(list(masks)) if pattern_texts else {}
    patterns = {
        name: _expected_pattern(name, masks.infos.get(name), requested.get(name), axis, ragged) for name in masks
    }
    results: list[dict[str, Any]] = []
    for name, expected in patterns.items():
        mask = masks[name]
        violation = mask_violation(mask, expected, masks.infos.get(name))
        results.append(
            {
                "name": name,
                "ok": violation is None,
                "pattern": str(expected),
                "shape": list(mask.shape),
                "density": float(mask.mean()) if mask.size else 0.0,
                "message": violation,
            }
        )
    _show(results, as_json=as_json)
    return all(result["ok"] for result in results)


def _expected_pattern(name: str, info: MaskInfo | None, requested: Pattern | None, axis: Any, ragged: Any) -> Pattern:
    # The text of a pattern has neither `axis` nor `ragged`; the command's options have priority over the masks file.
    if requested is not None:
        text = str(requested)
    elif info is not None:
        text = info.pattern
    else:
        raise InputError(f"the file does not state the pattern of {name!r}; pass --pattern")
    return parse_pattern(text, axis or (info.axis if info else "in"), ragged or (info.ragged if info else "pad"))  # type: ignore[arg-type]


def _show(results: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json({"ok": all(result["ok"] for result in results), "masks": results})
    else:
        _show_table(results)


def _show_table(results: list[dict[str, Any]]) -> None:
    show_table(
        ("tensor", "verdict", "shape", "kept"),
        [
            (
                result["name"],
                "ok" if result["ok"] else f"VIOLATION: {result['message']}",
                "x".join(map(str, result["shape"])),
                percent(result["density"]),
            )
            for result in results
        ],
        left_aligned=2,
    )
    mask_count_text, violation_count = count_text(len(results)), sum(not result["ok"] for result in results)
    if violation_count:
        violation_text = count_text(violation_count)
        print_line(f"{violation_text} of {mask_count_text} mask(s) violate their patterns, or do not fit them")
    else:
        print_line(f"{mask_count_text} mask(s): all satisfy their patterns")
