"""Worker processes and their lives: messages, heartbeats, restarts."""
