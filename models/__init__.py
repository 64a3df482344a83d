"""Other names of modules that live in `pipeline` and `heads`."""
