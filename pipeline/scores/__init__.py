"""Labels and predictions to figures; imports nothing else of ours."""
