"""Tree search over any actor-critic and any game, without Lightning and processes; only ``network`` knows torch."""

from keisei_lightning.search.boards import Boards, copies_of
from keisei_lightning.search.forest import Forest
from keisei_lightning.search.options import SearchOptions
from keisei_lightning.search.tree_search import Found, Progress, Roots, TreeSearch, Watch

__all__ = ["Boards", "Forest", "Found", "Progress", "Roots", "SearchOptions", "TreeSearch", "Watch", "copies_of"]
