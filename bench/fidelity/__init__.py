"""What the weight formats cost in quality: `python -m bench.fidelity`.

Start with __main__.py.
"""
