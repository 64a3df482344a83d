"""Stage two: from features to a run."""
