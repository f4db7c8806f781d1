"""Finished runs -> groups, statistics, tables, figures, one page; `--verify`."""
