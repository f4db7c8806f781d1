"""Files x sweep x seeds -> jobs: here, in parallel, on Ray, on Slurm; `--check`; the ranking of a sweep."""
