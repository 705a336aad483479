"""``mode="central"``: workers that only play moves, and one process that evaluates positions for all of them."""
