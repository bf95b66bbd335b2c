"""Agents in the forms that other tools read, and other tools' agents."""
