"""Files x sweep x seeds -> jobs: here, side by side, on Ray, on Slurm; `--check`; the ranking of a sweep."""
