"""One page with tables and plots of what was measured."""

from erank_lite.benchmarks.report.records import Record, read_records
from erank_lite.benchmarks.report.writing import write_report

__all__ = ["Record", "read_records", "write_report"]
