"""A run as one HTML page: for a browser without a network, a server or a file beside it."""

from __future__ import annotations

from .keeping import copy_report, keep_report
from .page import ReportLimits, content_policy, is_current, write_report

__all__ = ["ReportLimits", "content_policy", "copy_report", "is_current", "keep_report", "write_report"]
