"""Accuracy against lambda, Algorithm 1 (`inference.calibrate`, `inference.predict`), attacks and their checks (`pgd`,
`autoattack`, `ladder`, `diagnostics`).
"""
