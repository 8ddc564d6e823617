"""A gallery of embeddings that grows, forgets, and is searched with filters; `Gallery` is its face."""
