"""The book in the store: its tables, imports and changes, orders, and why a buyer is not served."""
