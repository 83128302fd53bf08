"""Check: whether what a repository holds is what was put there, and whom it concerns where it is not."""
