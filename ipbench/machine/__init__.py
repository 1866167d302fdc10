"""The machine: GPUs, processes, signals, precision, and where a number came from."""
