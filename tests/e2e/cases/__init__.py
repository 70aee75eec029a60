"""The end-to-end test cases, one module for each promise."""
