"""The training loop and what changes masks in it."""
