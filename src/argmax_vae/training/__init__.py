"""Lightning modules, and a run from its start to its end."""
