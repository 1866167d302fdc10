"""Data sets: what they are, where they come from, their splits, and how a run reads them.

`catalog` holds the facts and imports no torch. `loaders.Data` is all that one run reads; the other modules are its
parts. Nothing is imported here, so that planning a grid stays cheap.
"""
