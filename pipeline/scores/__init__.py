"""From labels and predictions to figures; imports nothing else of Stillwave."""
