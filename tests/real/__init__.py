"""With a real, small language model: SmolLM2-135M-Instruct, from a wheel (C33)."""
