"""Sparse nets: prunable layers, spaces, selection of what is kept, scores, counts."""
