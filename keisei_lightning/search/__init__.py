"""Tree search over any actor-critic and any game, without Lightning and processes; only ``network`` knows torch."""

from keisei_lightning.search.boards import Boards, copies_of
from keisei_lightning.search.forest import Forest
from keisei_lightning.search.options import SearchOptions
from keisei_lightning.search.tree_search import Found, Roots, TreeSearch

__all__ = ["Boards", "Forest", "Found", "Roots", "SearchOptions", "TreeSearch", "copies_of"]
