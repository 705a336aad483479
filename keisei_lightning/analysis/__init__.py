"""What a policy does, as numbers and as pictures: games with itself, its openings, and where it errs.

Each measure stands in a module without pictures; ``pictures`` draws them, and the curves and the payoff of runs.
"""
