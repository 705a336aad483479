"""Opponents: frozen earlier policies that a share of the games is played against."""
