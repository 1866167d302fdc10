"""A run, from its spec to its record: stages, states, outcomes, and the check of a record."""
