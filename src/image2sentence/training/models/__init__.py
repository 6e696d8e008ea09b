"""Trained models: light encoders, token learner, query side."""
