"""Linear layers in int8 and int4, and the kernels that multiply them.

Start with linear.py; native/ holds the kernels in C, kernels.py knows which of them a machine has.
"""
