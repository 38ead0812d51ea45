"""How fast each engine and its peers are here, and how near to what the machine can do."""
