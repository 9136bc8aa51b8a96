"""How sparse the codes are (section D.1)."""

import pandas as pd


def zero_shares(codes: pd.DataFrame) -> pd.DataFrame:
    """The share of exact zeros in each CSC layer's code, per run, in percent (section D.1: 52%)."""
    keys = ["dataset", "system", "seed", "layer"]
    zeros = codes[codes.bin_low == codes.bin_high].set_index(keys)["count"]
    shares = 100 * zeros / codes.groupby(keys, sort=False)["count"].sum()
    return shares.rename("zero_percent").reset_index()
