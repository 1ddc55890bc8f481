"""The experiments of arXiv 2306.00684, and D', run by ``python -m ebm``."""
