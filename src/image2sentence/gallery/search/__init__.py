"""Vector search in a gallery."""
