"""What came of it: messages counted by group, held against targets, and told as JSON, as a table and as a page."""

from gateway.report.counting import By, Column, Counting, Question, Report, TooMany
from gateway.report.page import page, security
from gateway.report.table import remarks, rows, sheet
from gateway.report.told import described

__all__ = [
    "By",
    "Column",
    "Counting",
    "Question",
    "Report",
    "TooMany",
    "described",
    "page",
    "remarks",
    "rows",
    "security",
    "sheet",
]
