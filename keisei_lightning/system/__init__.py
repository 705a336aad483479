"""The machine and the process: CPUs and memory, signals, the allocator, OpenMP, the screen."""
