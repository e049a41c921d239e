"""Where ``flows.diffs`` finds the removal of trees: it is in ``blocks.removal`` now."""

from __future__ import annotations

from blocks.removal import remove_tree

__all__ = ["remove_tree"]
