"""The method in miniature: in-domain models, trained here in minutes, that tell its choices apart (docs/results.md)."""
