"""`python -m argmax_vae`."""

import sys

from argmax_vae.cli import main

sys.exit(main())
