"""The dashboard and live play. Reads run directories only."""
