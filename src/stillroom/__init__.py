"""Stillroom distils chains of thought and looks inside what comes out. Importing it imports no room and no torch."""

__version__ = "0.1.0"
