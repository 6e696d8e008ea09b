"""A starter model of everyday things."""
