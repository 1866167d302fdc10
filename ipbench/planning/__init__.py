"""What is trained: experiments, their grids, jobs, and the version of the numerics of a run."""
