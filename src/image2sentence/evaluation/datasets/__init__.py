"""Loaders of benchmark annotations."""
