"""Straight into TimescaleDB, without a broker: the sink's writing behind the collector's port."""
