"""Many machines; the only place that imports ray."""
