"""Chat for OpenAI's clients (contract 2), streamed or folded into one object.

Start with endpoints.py; wire.py has the chunks, fold.py puts them together.
"""
