"""The configuration: its schemas, what is legal, and the error lines of what is not. Nothing here imports torch."""
