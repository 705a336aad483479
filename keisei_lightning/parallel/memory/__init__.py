"""Shared memory: the slots of rollouts, and the published weights."""
