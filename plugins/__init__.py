"""The machinery of sweeps: registries, plans, stores, workers. It knows no family and no torch."""
