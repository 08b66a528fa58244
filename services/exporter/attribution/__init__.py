"""Whose work a GPU does: pods of Kubernetes, jobs of a batch system."""
