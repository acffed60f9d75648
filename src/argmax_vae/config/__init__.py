"""Configurations: their schema, their composition by Hydra, and the launchers of sweeps."""
