"""What was agreed: buyers, their endpoints, campaigns, terms, orders, limits, opening hours, numbers. Values alone."""
