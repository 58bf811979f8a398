"""`python -m recontext_data VERB ...`, the same as `recontext VERB ...`."""

import sys

from recontext_data.cli import main

if __name__ == "__main__":
    sys.exit(main())
