"""What a query of the marketplace asks for, read without a model; start with parser.py."""
