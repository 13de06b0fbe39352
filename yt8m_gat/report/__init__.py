"""Rows in, tables and figures out."""

from yt8m_gat.report.table import format_evaluation

__all__ = ["format_evaluation"]
