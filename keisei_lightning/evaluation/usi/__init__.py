"""Players that are USI engines: external programs that speak the Universal Shogi Interface."""
