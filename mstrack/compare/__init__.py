"""Trackers against each other on one data set: `mst compare` (a page, tables) and `mst plot` (figures for papers)."""
