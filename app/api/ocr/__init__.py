"""ID cards over HTTP (contract 5): an image in, its fields out, at once or as a stream."""
