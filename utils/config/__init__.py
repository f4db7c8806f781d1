"""YAML -> frozen, validated settings: the original's names, sweeps, base files, provenance."""
