"""The article job: outline, sections, style, with progress at every step.

Start with writer.py; steps.py has what the model is called for.
"""
