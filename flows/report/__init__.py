"""A run as one HTML page: for a browser without a network, a server or a file beside it."""

from __future__ import annotations

from .page import ReportLimits, content_policy, is_current, write_report

__all__ = ["ReportLimits", "content_policy", "is_current", "write_report"]
