"""From records to numbers, tables and figures (floor 5, no torch): knows records and grids, never models or methods.

`grid` -> what was planned; `collect` -> `runs.parquet`; `statistics` (pure) and `comparisons` (on a collection) -> the
numbers; `tables`, `summary` and `figures` -> what is printed; `plan` -> which files that will be, without drawing them.
Nothing is imported here, so that planning stays quick.
"""
