"""The studio: a web page over a store. Runs and their lineage, the report's figures, side-by-side chat with thoughts,
the oracle, and why a student failed.

It reads the store and writes nothing to it. Gradio (the extra `studio`) is imported where the page is made.
"""
