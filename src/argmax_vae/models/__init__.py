"""Networks, likelihoods, and θ(x, z) as estimators may ask for it."""
