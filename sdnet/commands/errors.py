"""What a user reads of an error: one sentence that says what to do."""

import errno

# What to do about a place that cannot be written to.
PLACES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EROFS: "make it writable",
    errno.EACCES: "allow yourself to use it",
}

# What to do about errors of PyTorch, by a part of what it says.
REMEDIES = {
    "out of memory": "the GPU's memory is too small: lower the recipe's batch_size or the width",
    "can't allocate memory": "the memory is too small: lower the recipe's batch_size or the width",
    "deterministic implementation": "a step has no deterministic form here: set the recipe's deterministic to false",
}


def sentence(error: Exception) -> str | None:
    """What went wrong and what to do; None for an error that is the program's own."""
    if isinstance(error, OSError) and error.errno in PLACES:
        remedy = f"{PLACES[error.errno]}, then the same command goes on; what was there before is untouched"
        return f"{error.filename}: {error.strerror.lower()}: {remedy}"
    if not isinstance(error, RuntimeError):
        return str(error)
    reason = " ".join(str(error).split())
    return next((f"{remedy} ({reason})" for sign, remedy in REMEDIES.items() if sign in reason), None)
