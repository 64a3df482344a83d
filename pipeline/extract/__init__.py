"""Stage one: a manifest to a store of frames."""
