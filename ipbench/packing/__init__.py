"""A trained sparse net as one small file."""
