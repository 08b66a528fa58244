"""Health check of one host: collect, mask, look for known troubles, pack."""
