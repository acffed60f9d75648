"""Which loss is trained, what labels add to it, and the bounds that are reported."""
