"""Sets aside what was measured of a run's former weights."""

import sys
from datetime import UTC, datetime
from pathlib import Path


def set_aside(folder: Path) -> None:
    """Move what was measured of a run's former weights into a folder of its own, where nothing reads it.

    After a command by hand nothing else would tell that it is stale; Snakemake measures anew only what it is asked for.
    """
    measured = [path for path in folder.glob("*") if path.suffix in (".csv", ".npz") and path.name != "history.csv"]
    if not measured:
        return
    former = folder / f"former-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"  # no two alike, or one would replace the other
    former.mkdir()
    for path in measured:
        path.rename(former / path.name)
    print(f"what was measured of the former weights is in {former} now", file=sys.stderr)
