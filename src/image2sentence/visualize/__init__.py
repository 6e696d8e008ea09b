"""Contact sheets and attention maps as pictures."""
