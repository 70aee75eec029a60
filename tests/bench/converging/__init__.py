"""Parts of the benchmark `convergence`."""
