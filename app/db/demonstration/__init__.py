"""A catalogue of our own invention, to try the marketplace with."""
