"""A run to a report."""
