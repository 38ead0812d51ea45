"""What an order costs, and how soon it can be told: full reasoning once, and replays of it."""
