"""What each command of `python -m sdnet` does."""

import sys

# jsonschema, which checks notebooks, would import it to check IRIs: notebooks have none, and it takes seconds.
sys.modules.setdefault("rfc3987_syntax", None)
