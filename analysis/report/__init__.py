"""One HTML page of a store: `python -m analysis.report STORE -o report.html`."""

from analysis.report.page import write_report

__all__ = ["write_report"]
