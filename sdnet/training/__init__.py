"""Training: the `loop` and its `step`, `schedule` and `checkpoint`, several processes (`distributed`), the same result
to the bit (`deterministic`), `precision`, evaluation on clean images (`evaluate`), and a `plain` loop to compare with.
"""
