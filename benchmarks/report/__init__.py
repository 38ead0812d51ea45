"""One page with tables and plots of what was measured."""

from erank_lite.benchmarks.report.output import write_report
from erank_lite.benchmarks.report.read import from_dict, read_records
from erank_lite.benchmarks.report.records import Record

__all__ = ["Record", "from_dict", "read_records", "write_report"]
