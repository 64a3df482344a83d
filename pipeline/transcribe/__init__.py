"""Speech to text: fills the empty texts of a manifest. Each kind of model is one module here."""
