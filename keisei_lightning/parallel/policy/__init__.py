"""The policy where games are played: one forward pass for the boards of a ply."""
