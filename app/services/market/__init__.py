"""The marketplace: accounts, goods, search, and an assistant that knows what is in stock."""
