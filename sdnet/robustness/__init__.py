"""Under noise: accuracy against lambda (`sweep`), Algorithm 1 (`peaks`, `calibration`; for a network of one's own
`inference.calibrate` and `inference.predict`), how far a code moves (`stability`),
and what batch norms alone would gain (`control`).

Under attack: `pgd`, `autoattack`, attackers who know lambda (`adaptive_attacks`), all in order (`ladder`), what is left
(`outcome`), and whether they are good ones (`diagnostics`).

Intervals and paired tests: `statistics`.
"""
