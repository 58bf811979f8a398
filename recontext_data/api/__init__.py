"""The library behind `import recontext_data`: recipes and runs as objects, and recontextualization of somebody else's rows."""
