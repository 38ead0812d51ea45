"""How a server holds under load."""
