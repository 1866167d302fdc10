"""Nets by name: `catalog` knows the names without torch, `build` makes the nets, `initialise` draws weights.

This file imports nothing, so that planning a grid can read the catalogue without paying for torch.
"""
