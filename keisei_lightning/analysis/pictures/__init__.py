"""Pictures of runs and of policies, as SVG or PNG by the file's name. Each needs only numbers, and no torch."""
