"""Checks every blob of a store, also while the installation runs: `python -m masksmith_state.fsck [--repair]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from obstore.exceptions import BaseError as StoreError

from masksmith_wire.quantities import count_text
from masksmith_wire.text import printable, without_credentials

from .blobs.names import BLOB_FOLDERS, RESULTS, WEIGHTS, is_blob_name, is_sealed_name, result_report_name
from .blobs.objects import NotAFileError
from .blobs.pieces import unseal
from .blobs.store import BlobStore
from .errors import DamagedBlobError, InstallationError, ReplacedBlobError, UncheckedBlobError
from .installation import IDENTITY_NAME, protect_files
from .jobs.reports import ShardReport
from .settings import StateSettings, read_settings


@dataclass
class FsckReport:
    """Outcome of a check.

    Attributes:
        checked: Number of blobs that were read.
        damaged: Names of the damaged ones.
        unreadable: Names of blobs that the store fails to read, for example because of a bad sector of its disk; they
            may be intact, and are left alone.
        unchecked: Names of blobs that cannot be checked, because the list of their pieces' digests is lost, and no
            report has the digest of the whole blob; they may be intact, and are left alone.
        replaced: Names of masks and weights that are intact, but do not have the digest in the report of their result,
            since another worker has written the same result at the same time; they are left alone, and jobs that need
            the result compute it again.
        foreign: Names of files in the store's folders that masksmith did not write; they are left alone.
        repaired: Whether the check ran with `--repair`: damaged blobs are then set aside, so that they are computed or
            sent again. A missing or damaged list of digests is computed again from its blob, if the blob has the digest
            in the upload's name or in the result's report. True even if nothing was damaged.
    """

    checked: int = 0
    damaged: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    repaired: bool = False


def check_store(store: BlobStore) -> FsckReport:
    """Check all blobs of a store; unless it is `read_only`, set damaged ones aside and write lost lists of digests.

    Raises:
        StoreError: If the store cannot be read.
    """
    report = FsckReport(repaired=not store.read_only)
    for name in _names(store):
        if not is_blob_name(name):
            report.foreign.append(name)
            continue
        try:
            # Unless the store is read-only, both methods set a damaged blob aside, and `verify` writes a lost list.
            store.get_sealed(name) if is_sealed_name(name) else store.verify(name, _recorded_digest(store, name))
        except FileNotFoundError:
            continue  # It was deleted meanwhile.
        except UncheckedBlobError:
            report.unchecked.append(name)
            continue
        except ReplacedBlobError:
            report.replaced.append(name)
        except DamagedBlobError:
            report.damaged.append(name)
        except StoreError:
            store.size(IDENTITY_NAME)  # Raises again if the whole store fails, not only this blob.
            report.unreadable.append(name)
            continue
        report.checked += 1
    return report


def _recorded_digest(store: BlobStore, name: str) -> str | None:
    """Digest of a mask or of updated weights in the report of the result; None if no readable report has it."""
    folder, _, key = name.split("/")
    if folder not in (RESULTS, WEIGHTS):
        return None
    report_name = result_report_name(key)
    try:
        data = unseal(report_name, store.objects.get(report_name))
        report = None if data is None else ShardReport.model_validate_json(data)
    except (FileNotFoundError, NotAFileError, ValueError):
        report = None
    if report is None:
        return None
    return report.mask_digest if folder == RESULTS else report.weights_digest


def _names(store: BlobStore) -> Iterator[str]:
    for folder in BLOB_FOLDERS:
        for name, _ in store.list(folder):
            # The part files of unfinished writes are called `name#1` and so on.
            if "#" not in name:
                yield name


def main(arguments: list[str] | None = None) -> int:
    """Check the store of the settings; returns the exit code.

    The code is 2 if the store is missing or unreadable, or a blob is unreadable; else 1 if a blob is damaged or cannot
    be checked; else 0.
    """
    parser = argparse.ArgumentParser(prog="masksmith fsck")
    parser.add_argument("--repair", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    settings = read_settings(StateSettings)
    settings.configure_logging()
    protect_files()
    try:
        store = BlobStore(settings.store_location, read_only=not options.repair)
        if store.size(IDENTITY_NAME) is None:
            store_url = printable(without_credentials(settings.store_location))
            sys.stderr.write(f"masksmith: {store_url} is not a store of masksmith: it has no {IDENTITY_NAME}\n")
            return 2
        report = check_store(store)
    except (StoreError, InstallationError) as error:
        sys.stderr.write(f"masksmith: the store cannot be read: {printable(without_credentials(str(error)))}\n")
        return 2
    sys.stdout.write(json.dumps(asdict(report)) + "\n" if options.json else _text(report))
    return 2 if report.unreadable else 1 if report.damaged or report.unchecked else 0


def _text(report: FsckReport) -> str:
    lines = [f"damaged{', set aside' if report.repaired else ''}: {name}" for name in report.damaged]
    lines += [f"cannot be read: {name}" for name in report.unreadable]
    lines += [f"cannot be checked, since the list of its pieces' digests is lost: {name}" for name in report.unchecked]
    lines += [f"intact, but its digest is not the one in the result's report: {name}" for name in report.replaced]
    lines += [f"not written by masksmith: {printable(name)}" for name in report.foreign]
    lines.append(f"{count_text(report.checked)} blob(s) checked, {count_text(len(report.damaged))} damaged")
    if report.damaged and not report.repaired:
        lines.append("'masksmith fsck --repair' sets them aside; results are then computed again, uploads sent again")
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.stderr.write("masksmith: interrupted\n")
        sys.exit(130)
