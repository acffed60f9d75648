"""Bias, spread and cost of every estimator at fixed parameters."""
