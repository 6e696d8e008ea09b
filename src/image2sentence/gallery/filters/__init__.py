"""Filter conditions on metadata: language and evaluation in each backend."""
