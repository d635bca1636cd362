"""Reports: a PDF that somebody signs, and pages where people look at thousands of fits."""

from __future__ import annotations

from xrdz.reporting.item import Curves, Order, PhaseCurve, ReportItem, item_of_analysis

__all__ = ["Curves", "Order", "PhaseCurve", "ReportItem", "item_of_analysis"]
