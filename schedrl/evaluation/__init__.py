"""Comparisons: many schedulers on many instances, every solution checked, with statistics and a report."""

from schedrl.evaluation.comparison import ComparisonOptions, compare
from schedrl.evaluation.results import ResultRow, read_results
from schedrl.evaluation.summary import Summary, summarise

__all__ = ["ComparisonOptions", "ResultRow", "Summary", "compare", "read_results", "summarise"]
