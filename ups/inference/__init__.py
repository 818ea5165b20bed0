"""Using a trained surrogate."""
