"""The results folder: its files, locks, scores, long format and log."""
