"""Recipes that make models and figures from data and seeds."""
