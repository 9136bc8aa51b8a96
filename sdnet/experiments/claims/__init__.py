"""The paper's claims, config/claims.yaml, and the verdicts on them."""
