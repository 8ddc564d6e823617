"""Embeddings and labels to scores: distances, ranking, re-ranking, metrics, protocols, results.

It knows no network, and may import `common`.
"""
