"""Words of goods: what is stored so that people find them, however they put it."""
