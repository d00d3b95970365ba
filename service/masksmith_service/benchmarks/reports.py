"""Builds the report of a benchmark from the results of its cases."""

from __future__ import annotations

from masksmith.benchmark import CaseResult, Report
from masksmith_service.errors import RequestError
from masksmith_state.jobs.model import JobRecord
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.unreadable_records import as_unreadable_record_errors
from masksmith_wire.benchmarks import CaseReport, PlannedCase
from masksmith_wire.errors import Code


def read_report(record: JobRecord, records: JobRecords) -> Report:
    """Build the report of a benchmark from the finished cases.

    Raises:
        RequestError: If the job is not a benchmark, or was deleted after its record was read.
        UnreadableRecordError: If a case or its report cannot be parsed.
    """
    if record.benchmark is None:
        raise RequestError(Code.RESULT_NOT_FOUND, f"job {record.id} is not a benchmark; its masks: .../masks")
    cases = records.cases(record.id)
    if not cases:
        raise RequestError(Code.JOB_NOT_FOUND, f"job {record.id} was deleted meanwhile")
    with as_unreadable_record_errors(record.id):
        reports = sorted(records.case_reports(record.id).items())
        results = [case_result(cases[index], report) for index, report in reports]
    settings = record.benchmark.options.model_dump(include={"device", "rounds", "threads", "seed"})
    return Report(results, settings | {"job": record.id})


def case_result(planned: PlannedCase, report: CaseReport) -> CaseResult:
    """Parse the result in a case's report; if it has none, return a result with an error and no measurements."""
    if report.result is not None:
        return CaseResult.read(report.result)
    case = CaseResult.read_case(planned.case)
    return CaseResult(case, case.rule.density, [], error=report.error.message if report.error else "failed")
