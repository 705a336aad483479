"""Workers: they play rollouts into slots."""
