"""From run directories to tables, statistics and pictures."""
