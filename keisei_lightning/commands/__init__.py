"""What a person types: ``keisei`` and its subcommands."""
