"""Vector and metadata files that a gallery reads or writes."""
