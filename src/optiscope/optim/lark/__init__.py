"""Lark: low-rank Kronecker factors, normalized steps, and step lengths found as it goes."""

from __future__ import annotations

from optiscope.optim.lark.optimizer import Lark

__all__ = ["Lark"]
