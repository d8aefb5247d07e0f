"""Scores of predicted boxes against annotations: arrays in, numbers out."""
