"""Training: the `loop` and its `step`, `schedule` and `checkpoint`, several processes (`distributed`), the same result
to the bit (`deterministic`), evaluation on clean images (`evaluate`), a `plain` loop to compare all of it with.
"""
