"""The marketplace over HTTP (contract 7)."""
