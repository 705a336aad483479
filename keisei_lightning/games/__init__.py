"""Placeholder by the lead until the games author writes the real re-exports."""

from keisei_lightning.games.protocol import NO_MOVE, Game, GameFactory, GameSpec, RenderFormat, StepResult, Symmetry

__all__ = ["NO_MOVE", "Game", "GameFactory", "GameSpec", "RenderFormat", "StepResult", "Symmetry"]
