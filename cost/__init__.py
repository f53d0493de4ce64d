"""What networks cost on a device: counts, latency tables, budgets."""
