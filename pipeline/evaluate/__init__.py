"""From a run to a report."""
