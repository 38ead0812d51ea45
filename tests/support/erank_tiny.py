"""The form of what the model in the package writes."""

import re

REASONING = re.compile(r"(All|Most|Few|No) terms found\.")
