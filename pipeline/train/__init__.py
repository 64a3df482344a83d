"""Stage two: features to a run."""
