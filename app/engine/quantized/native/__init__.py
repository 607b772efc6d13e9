"""Kernels in C, compiled by gcc when a model is first loaded.

Start with library.py; gemv.c multiplies few rows, gemm.c many, matmul.py calls them.
"""
