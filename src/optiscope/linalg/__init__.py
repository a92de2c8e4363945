"""Linear algebra on tensors: bases, eigenpairs, low-rank matrices, exact products."""
